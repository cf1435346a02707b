"""Map types, one per file. `base` holds what they share."""
