"""What can be said of a table without a sample: its error in a Gaussian world, its consistency, its distance from the truth."""
