"""How far a float32 network may be from exact arithmetic, and float64 with it.

A sum of n products in float32, in any order, errs by at most gamma_n = n u / (1 - n u) times the sum of the absolute
products, u = 2^-24 (Higham 2002, section 3.1). The bounds themselves are computed in float64, whose errors of the same
kind are 2^-29 of that: twice gamma_n has room for both. A step without arithmetic of its own, or whose relaxation has
some, has room for float64's alone.
"""

from __future__ import annotations

UNIT = 2.0**-24  # of float32, rounding to nearest
SLACK = 2.0**-40  # relative, for the arithmetic of the bounds in float64, whose unit is 2^-53
UNDERFLOW = 1e-30  # absolute, for what float32 flushes to zero
LARGEST = 1e30  # value up to which no sum on the way to it can have left float32's range: its room would be as large


def gamma(terms: int) -> float:
    """The room for a sum of so many products, relative to the sum of their absolute values."""
    return 2 * terms * UNIT / (1 - terms * UNIT)
