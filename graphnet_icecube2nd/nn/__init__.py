"""Building blocks of the models; all work on packed events."""
