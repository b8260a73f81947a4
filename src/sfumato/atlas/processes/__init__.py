"""Rows of processes, parametrisations, training and likelihood."""
