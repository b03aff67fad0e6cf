"""Rows, checkpoints and caches on disk, whole or absent, verified when read. May import core."""
