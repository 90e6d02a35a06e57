"""Precision schemes, one per file; found by the files that exist and by entry points."""
