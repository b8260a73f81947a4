"""The probability flow itself: to a tolerance, with its change of volume, and differentiated."""
