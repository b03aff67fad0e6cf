"""Entry points of a checkout: `python -m experiments.run`, `python -m experiments.train`."""
