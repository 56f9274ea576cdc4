"""Building blocks of the models, all working on packed events."""
