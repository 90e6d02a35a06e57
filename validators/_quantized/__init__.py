"""Takes quantized artifacts apart: their integers and ranges, and the program without them."""
