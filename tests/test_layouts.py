"""How devices share members and minibatches, and which way is chosen."""

import jax
import numpy as np
import pytest
from short_run import DIGITS

from lpw_jax import experiment
from lpw_jax.benchmark import collectives
from lpw_jax.config import ConfigError, load_config
from lpw_jax.data import split_order
from lpw_jax.devices.parallel import Devices
from lpw_jax.errors import UserError


def configured(layout="auto", backend="shard_map", num_members=10, *others):
    fields = {"parallel.layout": layout, "parallel.backend": backend}
    fields["late_phase.num_members"] = num_members
    return load_config(DIGITS, [*(f"--config.{name}={x}" for name, x in fields.items()), *others])


@pytest.mark.parametrize(
    ("layout", "backend", "num_members", "num_devices", "num_groups"),
    [
        ("auto", "pmap", 10, 8, 1),
        ("auto", "pmap", 10, 5, 5),
        ("auto", "shard_map", 10, 8, 2),
        ("auto", "shard_map", 10, 16, 2),
        ("auto", "shard_map", 10, 32, 2),
        ("auto", "shard_map", 10, 5, 5),
        ("auto", "shard_map", 10, 3, 1),
        ("auto", "shard_map", 10, 1, 1),
        ("groups", "shard_map", 12, 8, 4),
        ("groups", "shard_map", 12, 4, 4),
        ("groups", "shard_map", 10, 1, 1),
        ("members", "pmap", 12, 4, 4),
        ("data", "shard_map", 12, 4, 1),
    ],
)
def test_groups_of_devices(layout, backend, num_members, num_devices, num_groups):
    config = configured(layout, backend, num_members)
    assert experiment.num_groups(config, num_devices) == num_groups


@pytest.mark.slow
def test_auto_chooses_what_all_reduces_the_fewest_bytes(tiny_network):
    """Of all layouts of four members on eight devices, counted in compiled programs."""
    config = configured("auto", "shard_map", 4, "--config.train.batch_size=16")
    found = collectives.of_devices(config, num_classes=10)
    layouts = {Devices.over(backend="shard_map").in_groups(n).layout: n for n in (1, 2, 4)}
    assert set(found) == {"devices", "plain", *layouts}
    num_bytes = {n: found[layout]["bytes_per_image"] for layout, n in layouts.items()}
    assert min(num_bytes, key=num_bytes.get) == experiment.num_groups(config, 8) == 4
    assert num_bytes[1] > num_bytes[2] > num_bytes[4]
    assert {kind for layout in layouts for kind in found[layout]["collectives"]} == {"all-reduce"}


@pytest.mark.parametrize("num_groups", [1, 2, 3, 6])
@pytest.mark.parametrize("num_microbatches", [1, 2])
def test_every_member_sees_its_minibatch_on_the_devices_of_its_group(num_groups, num_microbatches):
    num_devices, num_members, size = 6, 12, 24
    order = np.random.default_rng(0).permutation(2 * num_members * size + 5).astype(np.int32)
    parts = split_order(
        order,
        num_members=num_members,
        batch_size=size,
        num_microbatches=num_microbatches,
        num_devices=num_devices,
        num_groups=num_groups,
    )
    own, sharing = num_members // num_groups, num_devices // num_groups
    assert parts.shape == (2, num_devices, own, size // sharing) and parts.dtype == np.int32
    for cycle in range(2):
        for member in range(num_members):
            first = member // own * sharing
            on_devices = parts[cycle, first : first + sharing, member % own]
            found = [np.split(part, num_microbatches) for part in on_devices]
            start = (cycle * num_members + member) * size
            for number, micro in enumerate(np.split(order[start : start + size], num_microbatches)):
                np.testing.assert_array_equal(
                    np.concatenate([part[number] for part in found]), micro
                )


def test_layouts_that_cannot_be_are_refused():
    with pytest.raises(ConfigError, match="layout = 'groups': needs parallel.backend = 'shard_map"):
        configured("groups", "pmap")
    with pytest.raises(UserError, match="'groups': .*common divisor, but 10 and 3 have none"):
        experiment.num_groups(configured("groups"), 3)
    with pytest.raises(UserError, match="'members': .*10 is not by 8; .* 'groups' if it can"):
        experiment.num_groups(configured("members"), 8)
    eight = Devices.over(jax.devices())
    with pytest.raises(ValueError, match="num_groups: must be 1 or 8 with pmap"):
        eight.in_groups(2)
    with pytest.raises(ValueError, match="num_groups: must divide 8 devices, got 3"):
        eight.in_groups(3)
