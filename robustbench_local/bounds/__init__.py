"""Lower bounds: what no attack can change, by intervals, by lines carried backwards, and by branch and bound."""
