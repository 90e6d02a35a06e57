"""Run an artifact in a fresh process and judge it; imports no torch."""
