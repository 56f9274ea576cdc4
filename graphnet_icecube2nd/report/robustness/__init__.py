"""Scores when data are not as simulated."""
