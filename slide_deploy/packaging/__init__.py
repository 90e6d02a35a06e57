"""What goes around a model: preprocessing, labels, images."""
