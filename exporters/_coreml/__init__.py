"""What a Core ML package has beside the converted program."""
