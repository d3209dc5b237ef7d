"""Data set image_folder."""
