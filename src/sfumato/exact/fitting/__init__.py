"""Laws fitted to streams of data."""
