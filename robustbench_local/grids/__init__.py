"""A grid: cells -> rows -> report. May import all but the command line."""
