"""Covariances and flows that are diagonal in a basis."""
