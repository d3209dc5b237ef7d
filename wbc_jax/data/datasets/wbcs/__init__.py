"""Data set wbcs."""
