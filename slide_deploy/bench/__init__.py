"""Latency measurement and tuning."""
