"""What the competition's code published: configurations, checkpoints."""
