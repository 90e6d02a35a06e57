"""Break artifacts on purpose, and measure what verification detects."""
