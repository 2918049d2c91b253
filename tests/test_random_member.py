"""Training by random members equals a plain loop over minibatches, told who was drawn."""

import functools

import jax
import numpy as np
import pytest
import small_models
from jax import jit
from short_run import DIGITS, subset

import lpw_jax
from lpw_jax import experiment
from lpw_jax.config import load_config
from lpw_jax.devices.parallel import Devices
from lpw_jax.errors import ConfigError
from lpw_jax.files.workdir import Workdir
from lpw_jax.method import optimizers
from lpw_jax.method.random_member import RandomMember
from lpw_jax.training import train

K, CYCLES = 3, 8
RATES = {"learning_rate": 0.05, "weight_decay": 0.1}
MEMBER_RATES = {"learning_rate": 0.08, "weight_decay": 0.2}


def loss_fn(params, model_state, batch, key):
    out = batch @ params["in"]["w"] @ params["head"]["w"]
    return ((out - 1) ** 2).mean(), (model_state, {})


def method(**settings):
    sgd = optimizers.sgd(momentum=0.9, nesterov=True)
    options = dict(coasting="reference", shared_grad_scale=0.5) | settings
    return RandomMember(loss_fn, lpw_jax.copies("head/w"), sgd, sgd, **options)


def sgd_step(weight, velocity, grad, *, learning_rate, weight_decay):
    grad = grad + weight_decay * weight
    velocity = 0.9 * velocity + grad
    return weight - learning_rate * (grad + 0.9 * velocity), velocity


def test_each_minibatch_trains_one_member_and_the_shared_weights(float64):
    """In float64, with momentum and decays; the others rest."""
    state = small_models.released(method(), K)
    step = jit(method().step)
    theta, theta_velocity = state.shared["in"]["w"], np.zeros((3, 2))
    phis = list(np.array(state.members["head"]["w"]))
    velocities = [np.zeros((2, 1)) for _ in phis]
    close = functools.partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-12)
    drawn = []
    for cycle in range(CYCLES):
        batch = small_models.minibatches(cycle, K)
        key = jax.random.key(5)
        before = int(state.step)
        state, metrics = step(state, batch, key, shared_args=RATES, member_args=MEMBER_RATES)
        for number, x in enumerate(batch):
            of_step = jax.random.fold_in(jax.random.fold_in(key, before + number), 2**32 - 1)
            k = int(jax.random.randint(of_step, (), 0, K, dtype=np.int32))
            drawn.append(k)
            hidden = x @ theta
            error = hidden @ phis[k] - 1
            close(metrics["loss"][number], (error**2).mean())
            phi_grad, theta_grad = hidden.T @ error / 2, x.T @ error @ phis[k].T / 2
            phis[k], velocities[k] = sgd_step(phis[k], velocities[k], phi_grad, **MEMBER_RATES)
            theta, theta_velocity = sgd_step(theta, theta_velocity, theta_grad / 2, **RATES)
        close(state.shared["in"]["w"], theta)
        close(state.members["head"]["w"], np.stack(phis))
    assert int(state.step) == K * CYCLES and min(np.bincount(drawn, minlength=K)) > 3


def test_members_on_several_devices_are_refused():
    state = small_models.released(method(), K)
    with pytest.raises(ValueError, match="member_axis: must be None"):
        method(member_axis="d").step(state, small_models.minibatches(0, K))


def configured(*fields):
    fields = (
        "train.epochs=3", "train.batch_size=8", "train.anneal_start=1", "train.anneal_end=3",
        "late_phase.release_epoch=1", "late_phase.num_members=2", "late_phase.member_mode=vmap",
        "late_phase.inner_training=False", "checkpoint.every_epochs=1", "checkpoint.keep=9",
        *fields,
    )  # fmt: skip
    return load_config(DIGITS, [f"--config.{field}" for field in fields])


@pytest.mark.usefixtures("tiny_network")
@pytest.mark.slow
def test_a_run_is_resumed_and_does_not_depend_on_devices(tmp_path):
    config = configured()

    def trained(name, num_devices=1):
        devices = Devices.over(jax.devices()[:num_devices])
        return train.Training(config, subset(48), devices).run(Workdir(tmp_path / name))[0]

    whole = trained("run")
    saved = sorted((tmp_path / "run/checkpoints").iterdir(), key=lambda path: int(path.name))
    (tmp_path / "cut/checkpoints").mkdir(parents=True)
    saved[1].rename(tmp_path / "cut/checkpoints" / saved[1].name)
    jax.tree.map(np.testing.assert_array_equal, trained("cut"), whole)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=2e-4), trained("two", 2), whole
    )


def test_members_stay_together_on_every_device():
    assert experiment.num_groups(configured(), 2) == 1
    message = "parallel.layout = 'members': must be data or auto .*inner_training = False"
    with pytest.raises(ConfigError, match=message):
        configured("parallel.layout=members")
