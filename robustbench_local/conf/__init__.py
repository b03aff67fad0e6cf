"""Configuration: the schema of grids and zoo recipes, the YAML files of both, and how they are read."""
