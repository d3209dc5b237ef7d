"""Data set pbc."""
