"""Readers: files of the field as sources of events."""
