"""Diffusions whose densities and paths are known."""
