"""The contracts: what a plug-in may import, and what every other room is built on. Imports nothing of the package."""
