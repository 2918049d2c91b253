"""Trained weights from and to torchvision and the published CIFAR code."""
