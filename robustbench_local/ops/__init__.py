"""Batched image operations that attacks and defenses share: filters, JPEG, noise, rounding. May import core."""
