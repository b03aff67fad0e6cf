"""Lower bounds: what no attack can change, by interval arithmetic (IBP) and by backward linear relaxation (CROWN)."""
