"""What the audit is tried on: models, attacks and rows that lie, and honest ones that resemble them."""
