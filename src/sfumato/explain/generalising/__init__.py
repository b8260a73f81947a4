"""Memorised or new: where the variance of training goes, and the shape of what was learned."""
