"""Benchmarks: one CSV schema, interleaved comparisons, provenance."""
