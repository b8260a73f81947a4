"""Where a sampler stops on its way, and what makes a choice of times optimal."""
