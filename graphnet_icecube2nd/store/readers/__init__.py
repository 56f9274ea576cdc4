"""Files of the field as sources of events for a store."""
