"""Names, settings and files of settings: plug-ins, grids, recipes, arguments. May import core, ops and storage."""
