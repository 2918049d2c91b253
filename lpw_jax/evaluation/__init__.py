"""Predictions of trained weights and what is made of them."""
