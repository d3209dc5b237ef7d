"""Data set synthetic_smear."""
