"""Evaluates models again and again: who is due, is the judge still the same, what has changed since."""
