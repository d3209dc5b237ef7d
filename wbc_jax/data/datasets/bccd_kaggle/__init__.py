"""Data set bccd_kaggle."""
