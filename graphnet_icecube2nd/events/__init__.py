"""Events: from pulses in columns to the packed batch that models eat."""
