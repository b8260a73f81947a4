"""Processes outside the linear family: any drift, any metric, degradations with and without noise."""
