"""Atomic files, hashing, JSON records, quiet converters."""
