"""Scalar Gaussian processes: the members, and how they are written."""
