"""Preprocessing, labels, images."""
