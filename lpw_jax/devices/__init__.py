"""Devices and hosts: what runs where, requests to end, checks before the start."""
