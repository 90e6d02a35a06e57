"""The unfused PyTorch model in float64, and what rounding alone does to it."""
