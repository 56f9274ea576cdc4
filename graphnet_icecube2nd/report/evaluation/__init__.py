"""Report of an evaluation: page, figures and tables."""
