"""Metrics, calibration, tables, figures and the predictions file."""
