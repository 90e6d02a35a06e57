"""Break artifacts on purpose, and measure what verification notices."""
