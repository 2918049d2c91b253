"""The loss around trained networks: its curvature, and its values on lines, planes and nearby."""
