"""In which order a model is learned."""
