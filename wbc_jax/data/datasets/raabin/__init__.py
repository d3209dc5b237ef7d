"""Data set raabin."""
