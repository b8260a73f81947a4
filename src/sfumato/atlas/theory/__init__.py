"""Rows of the analytical theory: the papers at the heart of the project."""
