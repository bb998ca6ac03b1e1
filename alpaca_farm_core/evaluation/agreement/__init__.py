"""Agreement of judges with people, and of judges with each other."""
