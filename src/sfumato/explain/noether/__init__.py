"""Noisy dynamical systems: most likely paths, symmetries, and what is conserved."""
