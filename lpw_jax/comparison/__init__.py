"""Runs beside published figures, the PyTorch code or one another, with statistics that hold."""
