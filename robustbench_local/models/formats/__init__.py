"""Formats that models come in, one a file; each is found through an entry point, as a stranger's would be."""
