"""What on-policy methods share: rollouts, rewards, updates, records and checkpoints."""
