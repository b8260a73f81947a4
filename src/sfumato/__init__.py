"""sfumato: build, sample, speed up, steer and understand diffusion models.

Three nouns carry everything. A *process* (`sfumato.noise`) makes noise of data; a *denoiser* (`sfumato.denoise`) is what we believe about
clean data when we see noisy data; a *sampler* (`sfumato.sample`) walks back. `sfumato.tune` finds the sampler that reaches reference
quality in the fewest evaluations. Names are imported from the rooms: `from sfumato.sample import Sampler`.
"""

__version__ = "0.1.0"


def cite(*rows: str) -> str:
    """BibTeX: of the library itself, or of papers of the atlas by id or slug, e.g. `cite("T3", "painters")`.

    Raises:
        ArgumentError: no row has that name; the nearest names are given.

    Example:
        >>> import sfumato
        >>> print(sfumato.cite("T3").splitlines()[0])
        @misc{wang2024unreasonable,
    """
    from sfumato.atlas.cite import bibtex

    return bibtex(*rows)
