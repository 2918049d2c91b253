"""Schedules over minibatches, as the optimisers of late-phase weights count."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

Schedule = Callable[[Any], Any]


def per_shared_update(schedule: Schedule, *, release_step: int, num_members: int) -> Schedule:
    """A schedule over minibatches for the shared optimiser, which counts its own updates.

    It makes one update a minibatch up to the release, after `release_step` of them, and then one a
    cycle of `num_members`, at whose first minibatch the schedule is read.
    """

    def over_updates(count):
        late = jnp.maximum(count - release_step, 0)
        return schedule(jnp.minimum(count, release_step) + late * num_members)

    return over_updates


def per_member_update(schedule: Schedule, *, release_step: int, num_members: int) -> Schedule:
    """A schedule over minibatches for the members' optimisers, which count from the release on.

    A member makes one update a cycle, for which the schedule is read at the cycle's first
    minibatch. Coasting steps count too, and not equally for all members: with coasting give rates
    as `member_args` of the step instead.
    """

    def over_updates(count):
        return schedule(release_step + count * num_members)

    return over_updates
