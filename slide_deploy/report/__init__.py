"""What was found, as one record, and a renderer per format."""
