"""Tables fitted to a denoiser, and what they are fitted to."""
