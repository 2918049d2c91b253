"""The program's own step, release, SWA and evaluation against the published code, in float64."""

import functools
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from reference_names import member_of, path_of, to_flax

from lpw_jax import evaluate, networks
from lpw_jax.config import load_config
from lpw_jax.data import Dataset, cifar
from lpw_jax.devices.parallel import Devices
from lpw_jax.devices.preemption import Preemption
from lpw_jax.files import described
from lpw_jax.files.workdir import Workdir
from lpw_jax.measures import metrics
from lpw_jax.measures.views import log_probs as log_probs_of
from lpw_jax.method.trees import path_name
from lpw_jax.training import session, train

GOLDEN = Path(__file__).parent / "golden"
CONFIG = str(Path(__file__).parents[1] / "configs" / "cifar10_bn.py")
TOLERANCE = 1e-9


def assert_agrees(ours, recorded, what):
    ours, recorded = np.asarray(ours), np.asarray(recorded)
    assert ours.dtype == np.float64 and ours.shape == recorded.shape, what
    error = np.abs(ours - recorded).max() / np.abs(recorded).max()
    assert error <= TOLERANCE, f"{what}: relative error {error:.2e}"


def config_of(golden, member_mode, **changes):
    """The recorded run as a configuration of this program."""
    settings = json.loads(str(golden["settings"]))
    fields = {
        "model.depth": settings["depth"],
        "model.width": settings["width"],
        "train.epochs": settings["epochs"],
        "train.batch_size": settings["batch"],
        "train.learning_rate": settings["lr"],
        "train.end_learning_rate": settings["end_lr"],
        "train.anneal_start": settings["anneal"][0],
        "train.anneal_end": settings["anneal"][1],
        "train.weight_decay": settings["wd"],
        "train.crop_padding": 0,
        "train.flip": False,
        "train.compute_dtype": "float64",
        "late_phase.num_members": settings["k"],
        "late_phase.release_epoch": settings["release"],
        "late_phase.coasting": "none" if settings["fix_quirk"] else "reference",
        "late_phase.learning_rate": settings["lr"],
        "late_phase.weight_decay": settings["late_wd"],
        "late_phase.member_mode": member_mode,
        "swa.start_epoch": settings["swa_start"],
        "evaluate.batch_size": 48,  # does not divide the 64 test images
    }
    if "batchnorm" in settings.get("hard_sharing", ()):
        fields["late_phase.patterns"] = ("head/.*",)
    if settings.get("use_template_bank"):
        fields |= {
            "late_phase.kind": "templates",
            "late_phase.template_groups": tuple(settings["use_template_bank"]),
            "late_phase.tied_learning_rate": settings["lr"],
        }
    fields |= {name.replace("__", "."): value for name, value in changes.items()}
    return load_config(CONFIG, [f"--config.{name}={value}" for name, value in fields.items()])


def dataset_of(golden):
    labels = {s: golden[f"{s}_labels"].astype(np.int32) for s in ("train", "test")}
    return Dataset(
        name="cifar10",
        train_images=golden["train_images"],
        train_labels=labels["train"],
        validation_images=golden["train_images"][:0],
        validation_labels=labels["train"][:0],
        test_images=golden["test_images"],
        test_labels=labels["test"],
        num_classes=10,
        mean=cifar.SPECS["cifar10"].mean,
        std=cifar.SPECS["cifar10"].std,
    )


def initial_state(golden, config, state):
    """`state` with the recorded weights."""
    recorded = {}
    for key in golden.files:
        if key.startswith("init/"):
            array = golden[key] if is_coefficients(key) else to_flax(golden[key])
            recorded["/".join(path_of(key[5:])), is_coefficients(key)] = array

    def filled(tree, *, own):
        def place(path, like):
            coefficients = own and path_name(path).endswith("/values")
            array = recorded[path_name(path).removesuffix("/values"), coefficients]
            array = array[None] if own else array
            assert array.shape == like.shape, path
            return np.ascontiguousarray(array)

        return jax.tree_util.tree_map_with_path(place, tree)

    return state.replace(
        shared=filled(state.shared, own=False),
        members=filled(state.members, own=True),
        shared_model_state=filled(state.shared_model_state, own=False),
        member_model_state=filled(state.member_model_state, own=True),
    )


def is_coefficients(key):
    return key.endswith("tied_coef") or ".coefficients." in key


def assert_weights_agree(weights, golden, prefix):
    flat = {name: flatten_dict(tree) for name, tree in weights.items()}
    shared = flat["shared"] | flat.get("shared_batch_stats", {})
    of_members = flat["late_phase"] | flat["batch_stats"]
    compared = 0
    for key in golden.files:
        if key.startswith(prefix):
            path = path_of(key.removeprefix(prefix))
            if is_coefficients(key):
                ours = of_members[(*path, "values")][member_of(key)]
                assert_agrees(ours, golden[key], key)
            else:
                ours = shared[path] if path in shared else of_members[path][member_of(key)]
                assert_agrees(ours, to_flax(golden[key]), key)
            compared += 1
    settings = json.loads(str(golden["settings"]))
    assert compared == len(shared) + settings["k"] * len(of_members)


def train_recorded(config, dataset, golden, devices, folder, monkeypatch):
    """The program's training from the recorded start; (losses, weights before SWA, final state)."""
    monkeypatch.setattr(train, "epoch_order", lambda seed, epoch, n: np.arange(n, dtype=np.int32))
    drawn = networks.random_state

    def not_drawn(*args):  # drawing weights takes long to compile
        shapes = jax.eval_shape(functools.partial(drawn, *args[:-1]), args[-1])
        return jax.tree.map(lambda leaf: jax.numpy.zeros(leaf.shape, leaf.dtype), shapes)

    monkeypatch.setattr(networks, "random_state", not_drawn)
    training = train.Training(config, dataset, devices)
    training.initial_state = initial_state(golden, config, training.initial_state)
    losses, cycles = [], training.runner.cycles

    def recording(*args, **options):
        for state, found in cycles(*args, **options):
            losses.append(found["loss"])
            yield state, found

    monkeypatch.setattr(training.runner, "cycles", recording)
    sessions = []

    class Kept(session.Session):
        def run(self):
            sessions.append(self)
            return super().run()

    monkeypatch.setattr(train, "Session", Kept)
    final, _ = training.run(folder)
    state = training.runner.fetch(
        sessions[0].progress.state, num_members=config.late_phase.num_members
    )
    return np.concatenate(losses), networks.to_weights(state), final


@pytest.mark.usefixtures("fast_steps")
@pytest.mark.parametrize(
    ("run", "member_mode", "num_devices"),
    [
        ("cifar_sgd_coasting", "vmap", 1),
        pytest.param("cifar_swa_coasting", "scan", 4, marks=pytest.mark.slow),
        pytest.param("cifar_head_only", "vmap", 8, marks=pytest.mark.slow),
        pytest.param("cifar_templates", "scan", 1, marks=pytest.mark.slow),
        pytest.param("cifar_sgd_paper", "vmap", 1, marks=pytest.mark.slow),
    ],
)
def test_agrees_with_the_published_code(
    float64, run, member_mode, num_devices, tmp_path, monkeypatch
):
    golden = np.load(GOLDEN / f"{run}.npz")
    config, dataset = config_of(golden, member_mode), dataset_of(golden)
    devices = Devices.over(jax.devices()[:num_devices])
    folder = Workdir(tmp_path)
    losses, last, final = train_recorded(config, dataset, golden, devices, folder, monkeypatch)
    assert_agrees(losses, golden["losses"], "losses")
    assert_weights_agree(last, golden, "final/")
    if config.swa.start_epoch:
        assert_weights_agree(networks.to_weights(final), golden, "swa/")

    ood_sets = {"LSUN": golden["ood_images"]}
    evaluator = evaluate.Evaluator(config, dataset, devices)
    found = evaluate.evaluate(evaluator, final, ood_sets, folder, Preemption())
    views = described.plain(found["views"])
    test, ood = (np.load(tmp_path / f"predictions/{name}.npz") for name in ("test", "ood_LSUN"))
    for k, logits in enumerate(test["members"]):
        assert_agrees(logits, golden[f"member_logits/{k}"], f"member {k}")
    assert_agrees(test["collapsed"], golden["average_logits"], "collapsed logits")
    for view, recorded in (("collapsed", "average"), ("ensemble", "ensemble")):
        log_probs, log_probs_ood = (log_probs_of(part, view) for part in (test, ood))
        assert_agrees(np.exp(log_probs), golden[f"{recorded}_probs"], view)
        entropy, entropy_ood = map(metrics.predictive_entropy, (log_probs, log_probs_ood))
        assert_agrees(entropy, golden[f"{recorded}_entropy"], f"{view} entropy")
        assert_agrees(entropy_ood, golden[f"{recorded}_entropy_ood"], f"{view} OOD entropy")
        auroc = np.float64(views[view]["ood"]["LSUN"]["auroc"])
        assert_agrees(auroc, golden[f"auroc_{recorded}"], f"{view} AUROC")
    labels = golden["test_labels"]
    accuracy, nll = (np.float64(views["collapsed"][name]) for name in ("accuracy", "nll"))
    assert_agrees(accuracy, golden["average_accuracy"], "accuracy")
    assert_agrees(nll * len(labels), golden["average_nll_sum"], "NLL")
    probs = golden["ensemble_probs"]
    accuracy, nll = (np.float64(views["ensemble"][name]) for name in ("accuracy", "nll"))
    assert_agrees(accuracy, np.mean(probs.argmax(1) == labels), "ensemble accuracy")
    assert_agrees(nll, -np.log(probs[np.arange(len(labels)), labels]).mean(), "ensemble NLL")
