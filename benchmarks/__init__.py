"""The project's figures: `python -m benchmarks` measures them and says whether they reach their targets."""
