"""Shift branches merged into one convolution, in our families and in any module."""
