"""Measuring how robust image classifiers are, against adversaries and against noise."""
