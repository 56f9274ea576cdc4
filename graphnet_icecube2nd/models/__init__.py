"""The models: DeepIce, its hybrids, their names and their weights."""
