"""The paper's ablations: every weight late-phase (nothing is shared), and release at the start."""

import copy
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny_net
from jax import jit
from short_run import DIGITS, SHORT, subset
from tiny_net import TinyNet, images, labels

import lpw_jax
from lpw_jax import dry_run, evaluate, main, models, networks
from lpw_jax.config import load_config
from lpw_jax.data import epoch_order
from lpw_jax.devices.parallel import Devices
from lpw_jax.files.workdir import Workdir
from lpw_jax.method.cycle import MEMBER_MODES
from lpw_jax.method.members import member
from lpw_jax.method.model_state import is_observed
from lpw_jax.training import train
from lpw_jax.training.schedules import Rates

K, B = 3, 8
ALL = "--config.late_phase.patterns=.*"
# Data is only normalised, so that a minibatch is its images.
PLAIN = ["--config.train.crop_padding=0", "--config.train.flip=False"]
EXACT = ["--config.train.batch_size=16", "--config.train.compute_dtype=float64"]


def method(**settings):
    return tiny_net.method(patterns=(".*",), shared_grad_scale=0.5, **settings)


@pytest.fixture
def start(float64):
    return tiny_net.released(method(), K)


def tiny_cycles(start, batches, *, coasting="none", member_mode="vmap"):
    step = jit(tiny_net.step(method(coasting=coasting, member_mode=member_mode)))
    for image, label in batches:
        start, _ = step(start, {"image": image, "label": label}, Rates(0.7, 0.3, 0.2, 3e-2, 0.5))
    return jax.device_get(start)


def of_member(state, k):
    """Weights and running statistics."""
    return jax.tree.map(lambda leaf: leaf[k], (state.members, state.member_model_state))


def independent_sgd(model, member, stats, minibatches, *, rate, decay):
    """One ordinary training: parameters and running statistics after its minibatches.

    `rate` is a function of the number of minibatches before.
    """
    sgd = optax.chain(
        optax.add_decayed_weights(decay), optax.sgd(rate, momentum=0.9, nesterov=True)
    )
    opt = jit(sgd.init)(member)

    @jit
    def update(params, stats, opt, image, label):
        def loss(params):
            logits, seen = model.apply(
                {"params": params}, image, train=True, mutable=["batch_stats"]
            )
            picked = jnp.take_along_axis(jax.nn.log_softmax(logits), label[:, None], 1)
            seen = jax.tree.map(lambda found: found.value, seen, is_leaf=is_observed)
            return -picked.mean(), seen["batch_stats"]

        grads, seen = jax.grad(loss, has_aux=True)(params)
        updates, opt = sgd.update(grads, opt, params)
        stats = jax.tree.map(lambda r, b: 0.9 * r + 0.1 * b, stats, seen)
        return optax.apply_updates(params, updates), stats, opt

    for image, label in minibatches:
        member, stats, opt = update(member, stats, opt, image, label)
    return member, stats


def assert_close(a, b, tolerance=1e-10):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=tolerance), a, b)


def tiny_batches(cycles=3):
    return [(images(c, K, B), labels(c, K, B)) for c in range(cycles)]


@pytest.mark.parametrize(
    "member_mode",
    [pytest.param(m, marks=() if m == "vmap" else pytest.mark.slow) for m in MEMBER_MODES],
)
def test_members_that_share_nothing_are_independent_trainings(start, member_mode):
    end = tiny_cycles(start, tiny_batches(), member_mode=member_mode)
    assert not jax.tree.leaves((start.shared, end.shared))
    for k in range(K):
        own = [(image[k], label[k]) for image, label in tiny_batches()]
        alone = independent_sgd(
            TinyNet(), *of_member(start, k), own, rate=lambda _: 0.2, decay=3e-2
        )
        assert_close(of_member(end, k), alone)


@pytest.mark.parametrize(
    "coasting", ["reference", pytest.param("every_minibatch", marks=pytest.mark.slow), "none"]
)
def test_members_that_share_nothing_do_not_hear_of_one_another(start, coasting):
    batches = tiny_batches()
    end = tiny_cycles(start, batches, coasting=coasting)
    for image, _ in batches:
        image[1] += 1.0
    moved = copy.deepcopy(start)
    for leaf in jax.tree.leaves(moved.members):
        leaf[1] *= 1.5
    other = tiny_cycles(moved, batches, coasting=coasting)
    for a, b in zip(jax.tree.leaves(end), jax.tree.leaves(other), strict=True):
        if a.ndim:
            np.testing.assert_allclose(a[0], b[0], rtol=0, atol=1e-12)
            np.testing.assert_allclose(a[2], b[2], rtol=0, atol=1e-12)
    head = end.members["head"]["kernel"], other.members["head"]["kernel"]
    assert not np.allclose(head[0][1], head[1][1], atol=1e-3)


def test_collapse_averages_every_weight_and_equal_members_are_their_collapse(start):
    end = tiny_cycles(start, tiny_batches())
    collapsed, _ = networks.collapse_of(TinyNet())(end)
    for layer, name in (("conv1", "kernel"), ("conv1", "bias"), ("head", "kernel")):
        assert_close(collapsed[layer][name], end.members[layer][name].mean(0))
    one = member(end, 1)
    equal = method().release(method().init(*one), num_members=K)
    image = images(9, B)

    @jit
    def apply(params, batch_stats):
        return TinyNet().apply({"params": params, "batch_stats": batch_stats}, image)

    assert_close(apply(*networks.collapse_of(TinyNet())(equal)), apply(*one))


def trained(config, folder, num_devices=1):
    devices = Devices.over(jax.devices()[:num_devices])
    return train.Training(config, subset(70), devices).run(Workdir(folder))[0]


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
def test_released_at_the_start_and_sharing_nothing_a_run_is_independent_trainings(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(models, "create", tiny_net.create)
    flags = [
        *EXACT,
        *PLAIN,
        ALL,
        "--config.train.epochs=3",
        "--config.train.anneal_start=0",
        "--config.train.anneal_end=2",
        "--config.late_phase.release_epoch=0",
        "--config.late_phase.num_members=2",
        "--config.late_phase.sigma=0.2",
        "--config.late_phase.weight_decay=0.01",
        "--config.late_phase.coasting=none",
    ]
    config = load_config(DIGITS, flags)
    training = train.Training(config, subset(70), Devices.over(jax.devices()[:1]))
    start = training.released(training.initial_state)
    end, _ = training.run(Workdir(tmp_path))
    data = subset(70)
    normal = (data.train_images / 255.0 - np.array(data.mean)) / np.array(data.std)
    for k in range(2):
        own = []
        for epoch in (1, 2, 3):  # two cycles of two minibatches each
            order = epoch_order(config.seed, epoch, 70)[:64].reshape(2, 2, 16)
            own += [(normal[cycle[k]], data.train_labels[cycle[k]]) for cycle in order]
        alone = independent_sgd(
            training.model,
            *of_member(start, k),
            own,
            rate=lambda count: jnp.array([0.1, 0.0505, 0.001])[count // 2],
            decay=0.01,
        )
        assert_close(of_member(end, k), alone)


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("released_at", [0, 1])
def test_ablations_with_swa_do_not_depend_on_devices_modes_and_interruptions(
    released_at, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(models, "create", tiny_net.create)
    flags = [ALL] if released_at else ["--config.swa.start_epoch=1"]
    flags += [f"--config.late_phase.release_epoch={released_at}", "--config.checkpoint.keep=9"]
    flags += ["--config.late_phase.num_members=4", "--config.checkpoint.every_epochs=1"]
    flags = [*SHORT, *EXACT, *flags]
    config = load_config(DIGITS, flags)
    one = trained(config, tmp_path / "run")
    assert (one.shared["conv1"]["kernel"] is not None) == (released_at == 0)
    other = load_config(
        DIGITS, [*flags, "--config.parallel.layout=members", "--config.late_phase.member_mode=vmap"]
    )
    assert_close(trained(other, tmp_path / "other", num_devices=2), one, 1e-9)

    checkpoints = sorted((tmp_path / "run" / "checkpoints").iterdir(), key=lambda p: int(p.name))
    cut = tmp_path / "cut" / "checkpoints"
    shutil.copytree(checkpoints[1], cut / checkpoints[1].name)
    resumed = trained(config, cut.parent)
    jax.tree.map(np.testing.assert_array_equal, resumed, one)
    assert "resumed at epoch 3" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.usefixtures("tiny_network")
def test_the_whole_program_runs_with_nothing_shared(tmp_path, capsys):
    flags = ["--config", DIGITS, "--workdir", str(tmp_path / "run"), *SHORT, ALL]
    flags += ["--config.data.validation_examples=1181", "--config.train.batch_size=16"]
    flags += ["--config.late_phase.member_mode=vmap"]  # compiles soonest
    assert main.main([*flags, "--dry_run"]) == 0
    shown = capsys.readouterr().out
    assert "dry run: all checks passed" in shown
    (total,) = [line.split() for line in shown.splitlines() if line.strip().startswith("total")]
    assert total == ["total", "0", "730", "730", "100.00", "%"]
    assert shown.count(", step ") == 2 * dry_run.STEPS
    assert main.main(flags) == 0 and main.main(flags) == 0  # the second one only shows it
    before = json.loads((tmp_path / "run" / "results.json").read_text())
    assert before["num_parameters"] == before["num_late_phase_parameters"] == 730
    assert evaluate.main(["--workdir", str(tmp_path / "run")]) == 0
    after = json.loads((tmp_path / "run" / "results.json").read_text())
    assert after["views"]["collapsed"]["nll"] == pytest.approx(before["views"]["collapsed"]["nll"])
    run = lpw_jax.load(tmp_path / "run")
    assert run.stacked["shared"] == {}
    assert run.member(1)["params"]["conv1"]["kernel"].shape == (4, 4, 3, 8)
