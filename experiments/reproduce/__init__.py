"""Published figures, measured again: `python -m experiments.reproduce NAME`."""
