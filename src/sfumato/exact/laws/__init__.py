"""Laws of clean data: Gaussian, mixtures of them, training sets, and their relatives."""
