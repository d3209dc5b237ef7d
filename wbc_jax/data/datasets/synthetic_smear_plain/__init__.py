"""Data set synthetic_smear_plain."""
