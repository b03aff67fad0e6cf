"""Pure functions of a verdict's arrays: rates, intervals, paired tests, curves. May import core."""
