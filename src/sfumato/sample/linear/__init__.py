"""Samplers under any linear SDE: tables with operators for coefficients."""
