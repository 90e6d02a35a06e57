"""Float16 artifacts with float32 arithmetic, for each target."""
