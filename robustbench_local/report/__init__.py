"""What is made of rows, and of rows only."""
