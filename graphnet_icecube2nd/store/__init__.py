"""Where events lie: the store, its making from files of the field, and back."""
