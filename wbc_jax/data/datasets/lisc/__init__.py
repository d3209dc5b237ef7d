"""Data set lisc."""
