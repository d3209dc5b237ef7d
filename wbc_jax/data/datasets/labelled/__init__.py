"""Data set labelled."""
