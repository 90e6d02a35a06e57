"""Exports and verifies models; the command line calls these functions."""
