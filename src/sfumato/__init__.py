"""sfumato: build, sample, speed up, steer and understand diffusion models.

Three nouns carry everything. A *process* (`sfumato.noise`) makes noise of data; a *denoiser* (`sfumato.denoise`) is what we believe about
clean data when we see noisy data; a *sampler* (`sfumato.sample`) walks back. `sfumato.tune` finds the sampler that reaches reference
quality in the fewest evaluations.
"""

__version__ = "0.1.0"
