"""Mistakes of the user, as opposed to faults of the program."""


class UserError(ValueError):
    """Something the user can put right; programs print its message and exit with code 2."""


class ConfigError(UserError):
    """A configuration that cannot be run: one line for each mistake."""
