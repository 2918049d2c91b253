"""Do two sides differ? Means over seeds against means over seeds, and one run against another."""
