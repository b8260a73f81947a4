"""Losses and bounds on the likelihood, and the laws of times that they are taken over."""
