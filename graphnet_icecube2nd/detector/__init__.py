"""The detector: where the DOMs are, how the ice is, what a pulse column means."""
