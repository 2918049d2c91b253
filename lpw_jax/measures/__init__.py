"""What is measured of predictions, on the host."""
