"""Configurations: `base` explains every field once, every other file is one run."""
