"""Tasks: what is reconstructed of an event, one file each."""
