"""Quantization of float32 artifacts by the tools of each target."""
