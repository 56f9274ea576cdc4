"""Tables of results: one row an event."""
