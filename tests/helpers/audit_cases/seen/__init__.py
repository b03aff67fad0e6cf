"""Cases that checks were written with."""
