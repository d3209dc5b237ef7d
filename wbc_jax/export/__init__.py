"""Portable forms of a trained run."""
