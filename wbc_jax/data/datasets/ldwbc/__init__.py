"""Data set ldwbc."""
