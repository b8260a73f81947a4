"""Few-step students, restorers, and the losses that make samples look like data."""
