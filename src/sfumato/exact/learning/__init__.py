"""Learning whose course is known: linear denoisers, the noise of the target, what lies between a data set and its Gaussian."""
