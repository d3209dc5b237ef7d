"""Data set jtsc."""
