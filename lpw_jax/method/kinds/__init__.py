"""Kinds of late-phase weights, a file each: how members' weights are made, used and collapsed."""
