"""Cases that no check was written with, by people who had not read the audit."""
