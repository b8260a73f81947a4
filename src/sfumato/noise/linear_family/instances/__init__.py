"""Named members of the linear SDE family, by kind of structure."""
