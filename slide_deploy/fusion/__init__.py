"""Merges shift branches into one convolution, in known families and in custom modules."""
