"""What a score is made of, and whether it is one."""
