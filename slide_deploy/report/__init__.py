"""Renders reports, one module per format."""
