"""Denoisers fitted in closed form: linear in features, or in a kernel."""
