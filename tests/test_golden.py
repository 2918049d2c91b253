"""The program's own step, release, SWA and evaluation against the published code, in float64."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from reference_names import is_statistic, member_of, path_of, to_flax

from lpw_jax import late_phase as lp
from lpw_jax import metrics, models, optimizers, schedules, state, swa
from lpw_jax.data import in_memory
from lpw_jax.parallel import DataParallel
from lpw_jax.predict import Predictor
from lpw_jax.runner import Runner

GOLDEN = Path(__file__).parent / "golden"
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
PATTERNS = ("(.*/)?bn[^/]*/(scale|bias)", "head/(kernel|bias)")
TOLERANCE = 1e-9


def assert_agrees(ours, recorded, what):
    ours, recorded = np.asarray(ours), np.asarray(recorded)
    assert ours.dtype == np.float64 and ours.shape == recorded.shape, what
    error = np.abs(ours - recorded).max() / np.abs(recorded).max()
    assert error <= TOLERANCE, f"{what}: relative error {error:.2e}"


def initial_state(golden, tx):
    params, stats = {}, {}
    for key in golden.files:
        if key.startswith("init/"):
            path = path_of(key[5:])
            (stats if is_statistic(path) else params)[path] = to_flax(golden[key])
    return state.create(unflatten_dict(params), unflatten_dict(stats), patterns=PATTERNS, tx=tx)


def assert_weights_agree(weights, golden, prefix):
    flat = {name: flatten_dict(tree) for name, tree in weights.items()}
    compared = 0
    for key in golden.files:
        if key.startswith(prefix):
            path = path_of(key.removeprefix(prefix))
            if path in flat["shared"]:
                ours = flat["shared"][path]
            else:
                tree = flat["batch_stats" if is_statistic(path) else "late_phase"]
                ours = tree[path][member_of(key)]
            assert_agrees(ours, to_flax(golden[key]), key)
            compared += 1
    settings = json.loads(str(golden["settings"]))
    leaves = jax.tree.leaves
    per_member = len(leaves(weights["late_phase"])) + len(leaves(weights["batch_stats"]))
    assert compared == len(leaves(weights["shared"])) + settings["k"] * per_member


def train(golden, *, member_mode, num_devices):
    """All epochs of a recorded run; returns minibatch losses, final weights, SWA weights, model."""
    settings = json.loads(str(golden["settings"]))
    model = models.create(
        "wide_resnet", depth=10, width=1, num_classes=settings["classes"], dtype=np.float64
    )
    tx = optimizers.sgd(momentum=0.9, nesterov=True)
    devices = DataParallel.over(jax.devices()[:num_devices])
    batch = in_memory.make_batch(
        key=jax.random.key(0),
        crop_padding=0,
        flip=False,
        cutout=0,
        mean=MEAN,
        std=STD,
        dtype=np.float64,
    )
    runner = Runner(
        devices=devices,
        model=model,
        tx=tx,
        coasting="none" if settings["fix_quirk"] else "reference",
        member_mode=member_mode,
        batch=batch,
        images=golden["train_images"],
        labels=golden["train_labels"].astype(np.int32),
        batch_size=settings["batch"],
    )
    order = np.arange(len(golden["train_images"]), dtype=np.int32)
    start, end = settings["anneal"]
    losses, averages = [], None
    train_state = devices.replicate(initial_state(golden, tx))
    for epoch in range(1, settings["epochs"] + 1):
        released = schedules.is_released(epoch, release_epoch=settings["release"])
        if epoch == settings["release"] + 1:
            train_state = devices.replicate(
                state.release(
                    train_state, jax.random.key(0), num_members=settings["k"], sigma=0.0, tx=tx
                )
            )
        rates = schedules.rates(
            epoch,
            released=released,
            anneal_start=start,
            anneal_end=end,
            learning_rate=settings["lr"],
            end_learning_rate=settings["end_lr"],
            weight_decay=settings["wd"],
            late_learning_rate=settings["lr"],
            late_weight_decay=settings["late_wd"],
            shared_grad_scale=1.0,
        )
        train_state, history = runner.train_epoch(train_state, order, rates)
        losses.append(history["loss"].ravel())
        if 0 < settings["swa_start"] <= epoch:
            averages = swa.update(averages or swa.init(train_state), train_state)
    final = {
        "shared": train_state.shared,
        "late_phase": train_state.late_phase,
        "batch_stats": train_state.batch_stats,
    }
    averaged = None
    if averages is not None:
        averaged = {"shared": averages.shared, "late_phase": averages.late_phase}
        averaged["batch_stats"] = runner.reestimate_statistics(
            averaged, train_state.batch_stats, order, int(train_state.step)
        )
    return np.concatenate(losses), final, averaged, model, devices


@pytest.mark.parametrize(
    ("run", "member_mode", "num_devices"),
    [
        ("cifar_sgd_coasting", "unroll", 1),
        ("cifar_sgd_coasting", "vmap", 4),
        ("cifar_sgd_paper", "vmap", 1),
        ("cifar_sgd_paper", "unroll", 4),
        ("cifar_swa_coasting", "unroll", 1),
        ("cifar_swa_coasting", "vmap", 1),
        ("cifar_swa_coasting", "unroll", 4),
        ("cifar_swa_coasting", "vmap", 4),
    ],
)
def test_agrees_with_the_published_code(float64, run, member_mode, num_devices):
    golden = np.load(GOLDEN / f"{run}.npz")
    losses, final, averaged, model, devices = train(
        golden, member_mode=member_mode, num_devices=num_devices
    )
    assert_agrees(losses, golden["losses"], "losses")
    assert_weights_agree(final, golden, "final/")
    if averaged is not None:
        assert_weights_agree(averaged, golden, "swa/")
    predict = Predictor(
        devices=devices,
        model=model,
        weights=averaged or final,
        mean=MEAN,
        std=STD,
        member_mode=member_mode,
        batch_size=48,  # does not divide the 64 test images
    )
    test, ood = predict(golden["test_images"]), predict(golden["ood_images"])
    for k, logits in enumerate(test["members"]):
        assert_agrees(logits, golden[f"member_logits/{k}"], f"member {k}")
    assert_agrees(test["collapsed"], golden["average_logits"], "collapsed logits")
    assert_agrees(np.exp(test["ensemble"]), golden["ensemble_probs"], "ensemble")
    collapsed = metrics.log_softmax(test["collapsed"])
    assert_agrees(np.exp(collapsed), golden["average_probs"], "collapsed probabilities")
    for view, name in ((metrics.log_softmax, "average"), (lambda x: x, "ensemble")):
        column = {"average": "collapsed"}.get(name, name)
        entropy, entropy_ood = (metrics.predictive_entropy(view(p[column])) for p in (test, ood))
        assert_agrees(entropy, golden[f"{name}_entropy"], f"{name} entropy")
        assert_agrees(entropy_ood, golden[f"{name}_entropy_ood"], f"{name} OOD entropy")
        auroc = metrics.ood_metrics(entropy, entropy_ood)["auroc"]
        assert_agrees(np.float64(auroc), golden[f"auroc_{name}"], f"{name} AUROC")
    summary = metrics.classification_metrics(collapsed, golden["test_labels"])
    assert_agrees(np.float64(summary["accuracy"]), golden["average_accuracy"], "accuracy")
    nll_sum = np.float64(summary["nll"]) * len(golden["test_labels"])
    assert_agrees(nll_sum, golden["average_nll_sum"], "NLL")
    assert lp.num_members(final["late_phase"]) == json.loads(str(golden["settings"]))["k"]
