"""Runs whose config names another kind of late-phase weights than copies."""

import jax
import numpy as np
import pytest
from short_run import DIGITS, subset

from lpw_jax import networks
from lpw_jax.config import load_config
from lpw_jax.devices.parallel import Devices
from lpw_jax.errors import UserError
from lpw_jax.files.workdir import Workdir
from lpw_jax.training import train

SHORT = (
    "train.epochs=3",
    "train.batch_size=8",
    "train.anneal_start=1",
    "train.anneal_end=3",
    "train.crop_padding=0",
    "late_phase.release_epoch=1",
    "late_phase.num_members=2",
    "swa.start_epoch=3",
    "checkpoint.every_epochs=1",
    "checkpoint.keep=9",
)
KINDS = {
    "rank_one": ("late_phase.kind=rank_one", "late_phase.kind_patterns=conv.*/kernel"),
    "low_rank": (
        "late_phase.kind=low_rank",
        "late_phase.rank=2",
        "late_phase.kind_patterns=conv.*/kernel",
        "late_phase.patterns=head/.*",
    ),
    "head only": ("late_phase.patterns=head/.*",),
}


def configured(*fields):
    return load_config(DIGITS, [f"--config.{field}" for field in (*SHORT, *fields)])


@pytest.mark.usefixtures("tiny_network")
@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_is_saved_resumed_evaluated_and_read_again(kind, tmp_path):
    config = configured(*KINDS[kind], "late_phase.member_mode=vmap", "late_phase.sigma=0.1")
    devices = Devices.over(jax.devices()[:1])
    training = train.Training(config, subset(48), devices)
    whole, _ = training.run(Workdir(tmp_path / "run"))
    checkpoints = sorted((tmp_path / "run/checkpoints").iterdir(), key=lambda p: int(p.name))
    (tmp_path / "cut/checkpoints").mkdir(parents=True)
    checkpoints[1].rename(tmp_path / "cut/checkpoints" / checkpoints[1].name)
    resumed, _ = train.Training(config, subset(48), devices).run(Workdir(tmp_path / "cut"))
    jax.tree.map(np.testing.assert_array_equal, resumed, whole)

    folder = Workdir(tmp_path / "weights")
    folder.path.mkdir()
    folder.save_weights(networks.to_weights(whole))
    again = networks.from_weights(config, folder.load_weights(), 10, "weights")
    jax.tree.map(np.testing.assert_array_equal, again, whole)
    views = training.evaluator.views(again)
    assert np.isfinite(views["collapsed"]["nll"]) and len(views["members"]) == 2

    if kind != "head only":  # which a golden trajectory trains on eight devices
        other = train.Training(config, subset(48), Devices.over(jax.devices()[:2]))
        assert other.in_groups.layout == "members"
        spread, _ = other.run(Workdir(tmp_path / "other"))
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=2e-4), spread, whole
        )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            ("late_phase.kind=rank_one", "late_phase.kind_patterns=head/kernel"),
            "late_phase.kind_patterns: .*head/kernel.* is chosen by two",
        ),
        (
            (
                "late_phase.kind=rank_one",
                "late_phase.patterns=head/.*",
                "late_phase.kind_patterns=bn.*",
            ),
            r"late_phase.kind_patterns: a weight must have .*'bn1/bias' has shape \(8,\)",
        ),
        (
            ("late_phase.kind=low_rank", "late_phase.kind_patterns=conv9/.*"),
            "late_phase.kind_patterns: every pattern must match .* 'conv9/.*' matches none",
        ),
    ],
)
@pytest.mark.usefixtures("tiny_network")
def test_weights_that_a_kind_cannot_have_are_refused_by_name(fields, message):
    with pytest.raises(UserError, match=message):
        networks.shapes(configured(*fields), 10)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (("late_phase.kind=rank_two",), "late_phase.kind = 'rank_two': must be one of copies"),
        (("late_phase.rank=0",), "late_phase.rank = 0: must be >= 1"),
        (
            ("late_phase.kind=templates", "late_phase.template_groups=body"),
            "late_phase.template_groups = .*must be one or more of adapter",
        ),
        (
            ("late_phase.kind=templates", "model.name=resnet50"),
            "templates are defined for wide_resnet",
        ),
    ],
)
def test_fields_of_kinds_are_checked_when_a_config_is_read(fields, message):
    with pytest.raises(UserError, match=message):
        configured(*fields)
