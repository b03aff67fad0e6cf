"""Lower bounds: what no attack can change, by intervals, by linear bounds carried backwards, and by branch and bound."""
