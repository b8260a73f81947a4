"""What is run by hand on the whole tree: a release, the table of coverage."""
