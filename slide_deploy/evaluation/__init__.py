"""Measures the accuracy of artifacts on labelled images."""
