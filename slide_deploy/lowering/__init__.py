"""Lowerings: equal formulations of Slide Attention, one per file; none of them knows a target."""
