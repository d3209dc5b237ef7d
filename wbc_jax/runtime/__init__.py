"""Devices, checkpoints, signals, logs, provenance: everything that touches the machine."""
