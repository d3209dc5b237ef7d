"""The data sets: one TFDS builder each, and what they share."""
