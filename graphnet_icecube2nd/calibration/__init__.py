"""Makes widths hold on events that were not trained on."""
