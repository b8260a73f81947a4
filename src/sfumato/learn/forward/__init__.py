"""Noisings that are learned together with the denoiser."""
