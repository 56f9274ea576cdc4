"""Displays of one event: a picture, and a page for the browser."""
