"""Latency of artifacts, and tuning by it."""
