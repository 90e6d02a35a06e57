"""Lowerings: equivalent computations of Slide Attention, one per file, independent of targets."""
