"""Trained networks of the published CIFAR code as runs of this program, and back."""

import json

import jax
import numpy as np
import pytest
import safetensors.numpy
from comparison_files import results
from flax.traverse_util import flatten_dict
from reference_names import is_statistic, member_of, path_of, to_flax
from test_golden import CONFIG, GOLDEN, assert_agrees, dataset_of

import lpw_jax
from lpw_jax import config as config_lib
from lpw_jax import evaluate, export, networks, torch_import
from lpw_jax.devices.parallel import Devices
from lpw_jax.devices.preemption import Preemption
from lpw_jax.files.workdir import Workdir
from lpw_jax.weights import reference_names

SMALL = ["--config.model.depth=10", "--config.model.width=1", "--config.late_phase.num_members=3"]
FLOAT64 = "--config.train.compute_dtype=float64"


def golden_entries(name, prefix):
    """A state dict of the published code: members, their statistics and the shared weights."""
    golden = np.load(GOLDEN / f"{name}.npz")
    return {key.removeprefix(prefix): golden[key] for key in golden.files if key.startswith(prefix)}


def counters(names, seen):
    """The counters of these batch norms, as the published code's files hold them."""
    means = (name for name in names if name.endswith("running_mean"))
    return {n.replace("running_mean", "num_batches_tracked"): np.array(seen) for n in means}


def saved(entries, *, seen=9, seen_by_tied=6):
    """All that `state_dict()` has: with tied copies, which are other numbers, and counters."""
    tied = {
        name.replace("no_coef_modules.1", "tied_module"): array + 1.0
        for name, array in entries.items()
        if "no_coef_modules.1" in name
    }
    return entries | tied | counters(entries, seen) | counters(tied, seen_by_tied)


def run_import(entries, folder, *more, config=CONFIG, workdir="run"):
    """Exit code of importing `entries` to the folder `workdir`."""
    np.savez(folder / "model.npz", **entries)
    flags = ["--weights", str(folder / "model.npz"), "--workdir", str(folder / workdir)]
    return torch_import.main(["late_phase", *flags, "--config", config, *SMALL, *more])


def run_export(folder, *more):
    """Exit code of exporting the run, and the file's entries."""
    output = folder / "back.safetensors"
    code = export.main(["--workdir", str(folder / "run"), "--output", str(output), *more])
    return code, safetensors.numpy.load_file(output) if output.exists() else None


def assert_same(trees, others):
    """Equal names, types and bits."""
    trees, others = (flatten_dict(tree, sep="/") for tree in (trees, others))
    assert trees.keys() == others.keys()
    for name, array in trees.items():
        assert array.dtype == others[name].dtype, name
        np.testing.assert_array_equal(array, others[name], err_msg=name)


@pytest.mark.parametrize(
    ("run", "prefix"),
    [
        pytest.param("cifar_sgd_coasting", "final/", marks=pytest.mark.slow),
        ("cifar_swa_coasting", "final/"),
        pytest.param("cifar_swa_coasting", "swa/", marks=pytest.mark.slow),
    ],
)
def test_an_imported_network_evaluates_as_in_the_published_code(float64, run, prefix, tmp_path):
    golden, entries = np.load(GOLDEN / f"{run}.npz"), golden_entries(run, prefix)
    # The batch size does not divide the 64 test images.
    assert run_import(saved(entries), tmp_path, FLOAT64, "--config.evaluate.batch_size=24") == 0
    folder = Workdir(tmp_path / "run")
    config, found = folder.read_trained()
    assert found.status == "trained" and found.imported.format == "npz"
    weights = folder.load_weights()
    flat = {name: flatten_dict(tree) for name, tree in weights.items()}
    for name, array in entries.items():
        tree = flat["batch_stats" if is_statistic(path_of(name)) else "late_phase"]
        ours = flat["shared"].get(path_of(name))
        ours = tree[path_of(name)][member_of(name)] if ours is None else ours
        np.testing.assert_array_equal(ours, to_flax(array), err_msg=name)
    if (run, prefix) == ("cifar_swa_coasting", "final/"):
        return  # the recorded logits are those of its averages

    devices = Devices.over(jax.devices()[:1])
    evaluator = evaluate.Evaluator(config, dataset_of(golden), devices)
    ood_sets = {"LSUN": golden["ood_images"]}
    contents = evaluate.finish(evaluator, weights, ood_sets, folder, found, Preemption())
    assert folder.read_results().status == "complete"
    stored = np.load(tmp_path / "run/predictions/test.npz")
    assert len(stored["members"]) == 3
    for k, logits in enumerate(stored["members"]):
        assert_agrees(logits, golden[f"member_logits/{k}"], f"member {k}")
    assert_agrees(stored["collapsed"], golden["average_logits"], "collapsed logits")
    assert_agrees(np.exp(stored["ensemble"]), golden["ensemble_probs"], "ensemble")
    collapsed = contents["views"]["collapsed"]
    for ours, theirs in (
        (collapsed["accuracy"], "average_accuracy"),
        (collapsed["nll"] * len(stored["label"]), "average_nll_sum"),
        (collapsed["ood"]["LSUN"]["auroc"], "auroc_average"),
    ):
        assert_agrees(np.float64(ours), golden[theirs], theirs)


def test_the_tied_copy_becomes_a_run_that_was_never_released(float64, tmp_path):
    # As before the release: members are there, but were never trained.
    entries = golden_entries("cifar_sgd_coasting", "init/")
    untrained = saved(golden_entries("cifar_sgd_coasting", "final/"), seen=0) | entries
    assert run_import(untrained, tmp_path, "--tied", FLOAT64) == 0
    run = lpw_jax.load(tmp_path / "run")
    assert run.config.late_phase.release_epoch == -1
    assert json.loads((tmp_path / "run/results.json").read_text())["imported"]["tied"] is True
    params = {path_of(name): to_flax(array) for name, array in entries.items()}
    member = run.member(0)
    ours = flatten_dict(member["params"]) | flatten_dict(member["batch_stats"])
    assert ours.keys() == params.keys()
    for path, array in params.items():
        np.testing.assert_array_equal(ours[path], array, err_msg="/".join(path))
    with pytest.raises(ValueError, match="must be 0 to 0"):
        run.member(1)


def test_copies_that_were_not_trained_to_the_end_are_refused(tmp_path, capsys):
    entries = golden_entries("cifar_sgd_coasting", "final/")
    assert run_import(saved(entries, seen=0), tmp_path) == 2
    assert "saved before the release; --tied takes that copy" in capsys.readouterr().err
    assert run_import(saved(entries), tmp_path, "--tied") == 2
    assert "it is that of the release; without --tied" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_entries_that_are_missing_unknown_or_misshapen_are_named(tmp_path, capsys):
    entries = saved(golden_entries("cifar_sgd_coasting", "final/"))
    bn = "adapter.1.bn2.no_coef_modules.2"
    del entries[f"{bn}.running_var"]
    entries[f"{bn}.bias"] = np.zeros(31)
    entries |= {"T": np.ones(1), "adapter.1.bn2.tied_module.scale": np.ones(32)}
    assert run_import(entries, tmp_path) == 2
    error = capsys.readouterr().err
    assert f"missing: {bn}.running_var;" in error
    assert "unknown: T, adapter.1.bn2.tied_module.scale;" in error
    assert f"of another shape: {bn}.bias [31] instead of [32]" in error
    entries = golden_entries("cifar_sgd_coasting", "final/")
    entries[f"{bn}.bias"] = np.full(32, np.nan)
    assert run_import(entries, tmp_path) == 2
    assert f"finite floating-point numbers; not so: {bn}.bias" in capsys.readouterr().err
    entries = golden_entries("cifar_sgd_coasting", "final/")
    entries[f"{bn}.running_var"] = np.full(32, -1e-6)
    assert run_import(entries, tmp_path) == 2
    assert f"variances >= 0; not so: {bn}.running_var" in capsys.readouterr().err
    assert run_import({"conv1.weight": np.ones(3)}, tmp_path) == 2
    assert "there is no adapter.0.conv1.no_coef_modules.0.weight" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("model.depth=16", "model.depth = 16, 10 in the file"),
        ("model.width=2", "model.width = 2, 1 in the file"),
        ("late_phase.num_members=4", "members in the end = 4, 3 in the file"),
        ("late_phase.release_epoch=-1", "release_epoch = -1 never releases"),
        ("data.name=cifar100", "classes of data.name = 'cifar100' = 100, 10 in the file"),
        ("data.name=imagenet2012", "data.name must be one of cifar10, cifar100, digits"),
        ("model.name=resnet50", "must be 'wide_resnet'"),
        ("late_phase.patterns=head/(kernel|bias)", "unknown: adapter.0.bn1.no_coef_modules.1.bias"),
    ],
)
def test_the_config_must_describe_the_network_in_the_file(flag, message, tmp_path, capsys):
    entries = golden_entries("cifar_sgd_coasting", "final/")
    padding = ["--config.train.crop_padding=0"] if "imagenet" in flag else []
    assert run_import(entries, tmp_path, f"--config.{flag}", *padding) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_folder_that_holds_a_run_is_left_alone(tmp_path, capsys):
    entries = golden_entries("cifar_sgd_coasting", "final/")
    assert run_import(entries, tmp_path) == 0
    before = (tmp_path / "run/results.json").read_bytes()
    assert run_import(entries, tmp_path) == 2
    assert "must be new or empty, but holds a run already" in capsys.readouterr().err
    assert (tmp_path / "run/results.json").read_bytes() == before


def test_an_import_that_was_interrupted_is_repeated(tmp_path):
    entries = golden_entries("cifar_sgd_coasting", "final/")
    assert run_import(entries, tmp_path) == 0
    (tmp_path / "run/results.json").unlink()
    assert run_import(entries, tmp_path) == 0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_export_holds_every_entry_that_was_imported_bit_for_bit(dtype, tmp_path):
    entries = golden_entries("cifar_swa_coasting", "swa/")
    entries = {name: array.astype(dtype) for name, array in entries.items()}
    flags = [FLOAT64] if dtype == np.float64 else []
    assert run_import(saved(entries), tmp_path, *flags) == 0
    code, back = run_export(tmp_path)
    assert code == 0
    assert_same(back, entries | counters(entries, 0))


def test_a_run_that_is_exported_and_imported_is_the_same_bit_for_bit(tmp_path):
    flags = ["--config.model.depth=22", "--config.model.width=2", "--config.data.name=cifar100"]
    config = config_lib.load_config(CONFIG, [*SMALL, *flags])
    tied = networks.shapes(config, 100)
    shapes = networks.to_weights(networks.of_one_member(tied))
    rng = np.random.default_rng(0)

    def draw(tree, *members):
        def leaf(like):
            return np.abs(rng.standard_normal((*members, *like.shape), np.float32))  # variances too

        return jax.tree.map(leaf, tree)

    weights = {"shared": draw(shapes["shared"])}
    weights |= {name: draw(shapes[name], 3) for name in ("late_phase", "batch_stats")}
    folder = Workdir(tmp_path / "run")
    folder.path.mkdir()
    folder.identify(config)
    found = results("cifar10_bn", num_classes=100) | {"config": config.to_dict()}
    folder.write_json("results.json", found)
    folder.save_weights(weights)
    code, entries = run_export(tmp_path, "--names", "reference")
    assert code == 0
    assert entries["conv_block.2.2.no_coef_modules.2.running_var"].shape == (128,)
    assert entries["conv_block.1.1.conv1.no_coef_modules.0.weight"].shape == (64, 64, 3, 3)
    assert run_import(entries, tmp_path, *flags, workdir="again") == 0
    assert_same(Workdir(tmp_path / "again").load_weights(), weights)


def test_safetensors_and_npz_files_are_read_alike(tmp_path):
    entries = golden_entries("cifar_sgd_coasting", "final/")
    assert run_import(entries, tmp_path) == 0
    file = tmp_path / "model.safetensors"
    safetensors.numpy.save_file({n: np.ascontiguousarray(a) for n, a in entries.items()}, file)
    assert run_import(entries, tmp_path, "--weights", str(file), workdir="other") == 0
    assert_same(*(Workdir(tmp_path / name).load_weights() for name in ("run", "other")))


def test_names_are_those_of_the_published_code():
    names = {
        path: reference_names.reference_name(path, reference_names.member(3), depth=28)
        for path in (
            "conv_in/kernel",
            "group0_block0/conv_shortcut/kernel",
            "group0_block2/bn1/scale",
            "group2_block3/conv2/kernel",
            "bn_out/var",
            "head/bias",
        )
    }
    assert list(names.values()) == [
        "input_layer.no_coef_modules.3.weight",
        "adapter.0.convShortcut.no_coef_modules.3.weight",
        "conv_block.0.1.bn1.no_coef_modules.3.weight",
        "conv_block.2.2.conv2.no_coef_modules.3.weight",
        "conv_block.2.3.no_coef_modules.3.running_var",
        "head.no_coef_modules.3.bias",
    ]


def test_a_division_that_the_published_code_cannot_make_is_not_exported(tmp_path, capsys):
    entries = golden_entries("cifar_sgd_coasting", "final/")
    assert run_import(entries, tmp_path) == 0
    folder = Workdir(tmp_path / "run")
    config, weights = folder.read_config().to_dict(), folder.load_weights()
    config["late_phase"]["patterns"] = ["(.*/)?bn[^/]*/(scale|bias)", "head/bias"]
    folder.write_json("config.json", config)
    weights["shared"]["head"] = {"kernel": weights["late_phase"]["head"].pop("kernel")[0]}
    folder.save_weights(weights)
    assert run_export(tmp_path) == (2, None)
    assert "late_phase.patterns" in capsys.readouterr().err


def test_flags_of_a_config_are_refused_for_networks_that_have_none(capsys):
    flags = ["--weights", "a", "--output", "b", "--config.seed=1"]
    assert torch_import.main(["resnet50", *flags]) == 2
    assert "--config.seed=1: only late_phase has a config" in capsys.readouterr().err
