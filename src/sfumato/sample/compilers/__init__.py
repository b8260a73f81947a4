"""What writes a solver's table: one idea of a step a file."""
