"""What the audit is tried on beside tests/helpers/liars.py: models that lie, and honest ones that resemble them."""
