"""What is made of rows, and of rows only: tables, plots, pages, comparisons. May import storage and metrics."""
