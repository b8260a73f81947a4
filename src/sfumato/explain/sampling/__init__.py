"""What happens on the way from noise to a sample, and what a sampler makes of it."""
