"""Best-of-n sampling."""
