"""Data set bccd_voc."""
