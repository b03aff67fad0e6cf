"""Architectures, the zoo, models by name. May import evaluation and what is below."""
