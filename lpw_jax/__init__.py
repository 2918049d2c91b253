"""Neural networks with late-phase weights, in JAX.

The method is a library on pytrees, for any model, loss and optimiser: `LatePhase` and what is
listed beside it. The published experiments are a program on top of it, `python -m lpw_jax.main`.
"""

import importlib
import sys
from typing import Any

# By module, loaded when first asked for: a mistake in a config is answered before JAX is imported.
_PUBLIC = {
    "lpw_jax.method.late_phase": ("LatePhase",),
    "lpw_jax.method.state": ("State",),
    "lpw_jax.method.kinds.copies": ("copies",),
    "lpw_jax.method.kinds.rank_one": ("rank_one", "Factored"),
    "lpw_jax.method.kinds.low_rank": ("low_rank",),
    "lpw_jax.method.kinds.templates": ("templates", "mixed"),
    "lpw_jax.method.kinds.part": ("Kind", "Part", "combine"),
    "lpw_jax.method.model_state": ("Observed",),
    "lpw_jax.method.average": ("Average", "statistics_step"),
    "lpw_jax.method.members": (
        "members",
        "member",
        "map_members",
        "select_members",
        "greedy_soup",
        "ensemble",
    ),
    "lpw_jax.method.schedules": ("per_shared_update", "per_member_update"),
    "lpw_jax.loading": ("load", "load_weights"),
}
_MODULES = {name: module for module, names in _PUBLIC.items() for name in names}
__all__ = sorted(_MODULES)


if sys.argv[:1] == ["-m"]:  # Python is about to import and run a program, such as lpw_jax.main
    importlib.import_module("lpw_jax.errors").begin()


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
