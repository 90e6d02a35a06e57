"""Reads a checkpoint, or calls a factory, and returns a `Model`."""
