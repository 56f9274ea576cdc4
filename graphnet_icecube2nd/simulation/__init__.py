"""Simulated events with known truth, simplified: light and arrival times in ice."""
