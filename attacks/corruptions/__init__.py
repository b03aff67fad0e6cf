"""Nature as the attacker: what an image meets on its way to a model, a file per family."""
