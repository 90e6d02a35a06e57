"""A file or a factory becomes a `Model`."""
