"""Rows of solvers and schedules."""
