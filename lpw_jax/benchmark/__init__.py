"""How fast a config trains on the devices that are there: `python -m lpw_jax.benchmark`."""
