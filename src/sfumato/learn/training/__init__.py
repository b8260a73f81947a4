"""The training run: its loop, its state, its files, and what watches it."""
