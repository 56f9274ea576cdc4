"""Directions of events: classic reconstructions, and tables of what was found."""
