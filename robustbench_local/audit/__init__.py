"""The evaluation checklist, executed: on a model, on a grid's rows. May import training and what is below."""
