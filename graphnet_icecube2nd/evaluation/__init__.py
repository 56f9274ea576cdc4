"""How good results are, in numbers."""
