"""Rewards of answers: a reward model, a function, an HTTP endpoint or a judge."""
