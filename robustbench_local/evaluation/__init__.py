"""One attack on one model, judged: search, judge, the checks before. May import data, metrics and what is below."""
