"""Templates of Wide ResNets: T and S of every layer, and who shares a bank (kinds.md's facts)."""

import jax
import numpy as np
import pytest

from lpw_jax import networks, recipe
from lpw_jax.config import load_config
from lpw_jax.errors import UserError
from lpw_jax.method import trees
from lpw_jax.method.kinds.templates import Coefficients, Mixture


def layers(config, *fields):
    """(T, S) and the bank of each layer, and shapes of the banks."""
    config = load_config(f"configs/{config}.py", [f"--config.{field}" for field in fields])
    tied = networks.shapes(config, 100)
    parts = dict(
        zip(
            (path for path, _ in trees.places(tied.shared)),
            trees.structure(tied.shared).flatten_up_to(tied.members),
            strict=True,
        )
    )
    mixed = {path: part for path, part in parts.items() if isinstance(part, Coefficients)}
    weights = dict(trees.places(tied.shared))
    assert all((weights[path] is None) == (part.bank != path) for path, part in mixed.items())
    banks = {part.bank: weights[part.bank].shape for part in mixed.values()}
    found = {
        path.removesuffix("/kernel"): (*part.values.shape[1:], part.bank.removesuffix("/kernel"))
        for path, part in mixed.items()
    }
    return found, {path.removesuffix("/kernel"): shape for path, shape in banks.items()}


def test_a_wide_network_mixes_as_the_published_one():
    found, banks = layers("cifar100_hnet")  # n = 4 blocks, so m = 7
    first, second = "group0_block0/conv", "group1_block0/conv"
    assert found[f"{first}1"] == (7, 1, f"{first}1")  # 16 to 160 channels, ten times as many
    assert found[f"{first}2"] == (14, 2, f"{first}2")
    assert found["group0_block3/conv1"] == (14, 2, f"{first}2")
    assert found[f"{first}_shortcut"] == (7, 1, f"{first}_shortcut")
    assert found[f"{second}1"] == (14, 1, f"{second}1")  # 160 to 320, twice as many
    assert found[f"{second}2"] == (14, 2, f"{second}1")  # the same templates: 320 / 2 inputs
    assert banks[f"{first}2"] == (3, 3, 80, 160, 14)
    assert banks[f"{second}1"] == (3, 3, 160, 320, 14)
    assert banks[f"{second}_shortcut"] == (1, 1, 160, 320, 7)
    assert len(found) == 24 + 3 and "conv_in" not in found


@pytest.mark.parametrize("group", ["input_layer", "adapter", "conv_block"])
def test_each_group_may_be_mixed_alone(group):
    found, _ = layers("cifar100_hnet", f"late_phase.template_groups={group}")
    assert {
        "input_layer": set(found) == {"conv_in"} and found["conv_in"][:2] == (10, 1),
        "adapter": {name.split("/")[0] for name in found} == {f"group{g}_block0" for g in range(3)},
        "conv_block": not any("block0" in name or name == "conv_in" for name in found),
    }[group]


def test_a_head_is_mixed_with_its_bias():
    config = load_config(
        "configs/cifar100_hnet.py",
        [
            "--config.late_phase.template_groups=head",
            "--config.late_phase.patterns=(.*/)?bn[^/]*/(scale|bias)",
        ],
    )
    weights = networks.to_weights(networks.shapes(config, 100))
    assert weights["shared"]["head"]["kernel"].shape == (640, 100, 10)
    assert weights["shared"]["head"]["bias"].shape == (100, 10)
    assert weights["late_phase"]["head"]["kernel"]["values"].shape == (1, 10, 1)


def test_a_group_shares_its_coefficients_and_their_rates():
    flags = [
        "--config.late_phase.template_groups=adapter,head",
        "--config.late_phase.late_template_groups=head",
        "--config.late_phase.patterns=()",
    ]
    config = load_config("configs/cifar100_hnet.py", flags)
    weights = networks.to_weights(networks.shapes(config, 100))
    kernel = weights["shared"]["group0_block0"]["conv2"]["kernel"]
    assert kernel["templates"].shape == (3, 3, 80, 160, 14)
    assert kernel["coefficients"]["values"].shape == (14, 2)
    assert set(weights["late_phase"]) == {"head"}
    optimizer = recipe.method(config, None).shared_optimizer
    coefficients = Coefficients(np.ones((2, 1)), "a")
    tree = {"a": Mixture(np.ones((3, 2)), coefficients), "b": np.ones(2)}
    updates, _ = optimizer.update(
        jax.tree.map(np.zeros_like, tree),
        optimizer.init(tree),
        tree,
        learning_rate=0.1,
        weight_decay=0.5,
    )
    assert all(updates["b"] < 0) and (updates["a"].templates < 0).all()
    assert not updates["a"].coefficients.values.any()  # no decay


@pytest.mark.parametrize(
    ("groups", "rule"),
    [
        ("body", "must be some of adapter, conv_block, head, input_layer"),
        ("head", "must have one of late_phase.template_groups, so that something is late-phase"),
    ],
)
def test_late_phase_groups_are_checked(groups, rule):
    flags = [f"--config.late_phase.late_template_groups={groups}"]
    with pytest.raises(UserError, match=f"late_phase.late_template_groups = .*{rule}"):
        load_config("configs/cifar100_hnet.py", [*flags, "--config.late_phase.patterns=()"])
