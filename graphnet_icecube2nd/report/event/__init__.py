"""An event, seen: as a picture, and as a page for the browser."""
