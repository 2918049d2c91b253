"""The training loop, how it is saved and resumed, and what it tells of itself."""
