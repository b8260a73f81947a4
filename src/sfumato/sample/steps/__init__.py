"""What is no table, or wraps either: adaptive steps, Markov chains, restorers."""
