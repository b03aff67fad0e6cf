"""The images behind the numbers: a page made by asking the models of a grid once more. May import report and below."""
