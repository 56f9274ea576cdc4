"""Tables of directions beside the truth: numbers, pictures, the report."""
