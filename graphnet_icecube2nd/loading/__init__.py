"""How events come to a model: which, in which batches, read many at a time."""
