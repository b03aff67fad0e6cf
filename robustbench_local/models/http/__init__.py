"""The parts of a model behind HTTP: where it is, how it is asked, what it may cost, and what it answered before."""
