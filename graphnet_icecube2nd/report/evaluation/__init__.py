"""Evaluations of results: numbers, figures, the report."""
