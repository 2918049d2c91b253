"""What a network is trained for: a loss, and what its predictions are judged by."""
