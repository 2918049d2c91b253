"""Neural networks with late-phase weights, in JAX.

The method is a library on pytrees, for any model, loss and optimiser:

    LatePhase           a training: init, step, release, collapse
    State               all that a step changes, a pytree
    copies              late-phase weights that are members' own altogether
    rank_one            factors on the inputs and outputs of shared weights
    Factored            a weight and such factors, as a model gets them on activations
    low_rank            additions of low rank to shared weights
    templates, mixed    mixtures of shared templates, and which layers are mixed
    Kind, Part          what a kind of your own is made of
    combine             one member's parameters, of shared weights and its own
    Observed            what a layer saw in a batch, in the place of its new state
    Average             SWA and EMA of a state
    statistics_step     takes batch norm's statistics anew, as for averaged weights
    members, member     all members' or one member's parameters and model state
    map_members         a forward pass of every member
    select_members      a state with some of the members; its collapse is their soup
    greedy_soup         the members whose soup scores best
    ensemble            members' logits as the log of their mean probabilities
    per_shared_update, per_member_update
                        schedules over minibatches, as the optimisers count

Begin with `help(lpw_jax.LatePhase)`. The published experiments are a program on top of it,
`python -m lpw_jax.main`; of a run's folder:

    load                the trained network, ready to apply
    load_weights        its weights as nested dicts of arrays
"""

import importlib
import os
import re
import sys

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
__all__ = list(_MODULES)


_PROGRAM = re.compile(r"(-m)?lpw_jax(\.|$)")
# Python is about to import and run one of the programs, such as lpw_jax.main.
if sys.argv[:1] == ["-m"] and any(map(_PROGRAM.match, sys.orig_argv[1:])):
    if os.path.isdir(sys.path[0]) and os.path.samefile(sys.path[0], os.curdir):
        # The current directory may hold a random.py: it comes after all that is installed.
        sys.path.append(sys.path.pop(0))
    importlib.import_module("lpw_jax.errors").begin()


TYPE_CHECKING = False  # typing's own is not imported: a file of that name may be in the way
if TYPE_CHECKING:  # as `_PUBLIC` says; type checkers and editors take this to be true
    from lpw_jax.loading import load as load
    from lpw_jax.loading import load_weights as load_weights
    from lpw_jax.method.average import Average as Average
    from lpw_jax.method.average import statistics_step as statistics_step
    from lpw_jax.method.kinds.copies import copies as copies
    from lpw_jax.method.kinds.low_rank import low_rank as low_rank
    from lpw_jax.method.kinds.part import Kind as Kind
    from lpw_jax.method.kinds.part import Part as Part
    from lpw_jax.method.kinds.part import combine as combine
    from lpw_jax.method.kinds.rank_one import Factored as Factored
    from lpw_jax.method.kinds.rank_one import rank_one as rank_one
    from lpw_jax.method.kinds.templates import mixed as mixed
    from lpw_jax.method.kinds.templates import templates as templates
    from lpw_jax.method.late_phase import LatePhase as LatePhase
    from lpw_jax.method.members import ensemble as ensemble
    from lpw_jax.method.members import greedy_soup as greedy_soup
    from lpw_jax.method.members import map_members as map_members
    from lpw_jax.method.members import member as member
    from lpw_jax.method.members import members as members
    from lpw_jax.method.members import select_members as select_members
    from lpw_jax.method.model_state import Observed as Observed
    from lpw_jax.method.schedules import per_member_update as per_member_update
    from lpw_jax.method.schedules import per_shared_update as per_shared_update
    from lpw_jax.method.state import State as State
else:

    def __getattr__(name: str) -> object:
        if name in _MODULES:
            return getattr(importlib.import_module(_MODULES[name]), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
