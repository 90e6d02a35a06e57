"""Runs an artifact in a fresh process and decides its verdict; imports no torch."""
