"""The program that writes the collapsed network of a run as torchvision's state dict."""

import jax
import numpy as np
import pytest
import safetensors.numpy
import torchvision_weights
from comparison_files import results
from flax.traverse_util import flatten_dict
from short_run import DIGITS

import lpw_jax
from lpw_jax import config as config_lib
from lpw_jax import export, networks, recipe
from lpw_jax.files.workdir import Workdir
from lpw_jax.weights import pretrained, torchvision_names

NUM_CLASSES = 3


def trained(folder, name, *, with_weights):
    """A folder as training leaves it, with or without the weights of two different members.

    Returns torchvision's names of the weights, and their shapes there.
    """
    overrides = [f"--config.model.name={name}", "--config.late_phase.num_members=2"]
    config = config_lib.load_config(DIGITS, overrides)
    workdir = Workdir(folder)
    folder.mkdir()
    workdir.identify(config)
    found = results("digits_bn", overrides=overrides, num_classes=NUM_CLASSES)
    workdir.write_json("results.json", found)
    if with_weights:
        weights = folder / "weights.safetensors"
        entries = torchvision_weights.state_dict(name, NUM_CLASSES)
        safetensors.numpy.save_file({n: a.astype(np.float32) for n, a in entries.items()}, weights)
        variables, _ = pretrained.load_variables(weights, model_name=name, num_classes=NUM_CLASSES)
        weights.unlink()
        tied = recipe.method(config, None).init(variables["params"], variables["batch_stats"])
        members, stats = jax.tree.map(
            lambda leaf: np.concatenate([leaf, 2 * leaf]),
            (tied.members, tied.member_model_state),
        )
        state = tied.replace(members=members, member_model_state=stats)
        workdir.save_weights(networks.to_weights(state))
        return {n: array.shape for n, array in entries.items()}
    return {}


@pytest.mark.slow
def test_the_file_holds_the_collapsed_network_under_every_name_of_torchvision(tmp_path):
    folder, output = tmp_path / "run", tmp_path / "resnet50.safetensors"
    shapes = trained(folder, "resnet50", with_weights=True)
    assert export.main(["--workdir", str(folder), "--output", str(output)]) == 0
    entries = safetensors.numpy.load_file(output)
    assert {name: array.shape for name, array in entries.items()} == shapes
    counters = torchvision_names.counters(shapes)
    assert {entries[name].dtype for name in counters} == {np.dtype(np.int64)}
    variables, _ = pretrained.load_variables(output, model_name="resnet50", num_classes=NUM_CLASSES)
    collapsed = flatten_dict(lpw_jax.load(folder).collapsed, sep="/")
    variables = flatten_dict(variables, sep="/")
    assert variables.keys() == collapsed.keys()
    for path, array in collapsed.items():
        np.testing.assert_array_equal(variables[path], array, err_msg=path)


def test_networks_that_torchvision_does_not_have_and_other_folders_are_refused(tmp_path, capsys):
    folder, output = tmp_path / "run", tmp_path / "net.safetensors"
    assert export.main(["--workdir", str(folder), "--output", str(output)]) == 2
    assert f"--workdir = '{folder}': must hold a finished training" in capsys.readouterr().err
    trained(folder, "wide_resnet", with_weights=False)
    arguments = ["--workdir", str(folder), "--output", str(output), "--names", "torchvision"]
    assert export.main(arguments) == 2
    assert "--names = 'torchvision': must be 'reference' for wide" in capsys.readouterr().err
    assert not output.exists()


def test_an_output_that_cannot_be_written_is_refused_before_weights_are_loaded(tmp_path, capsys):
    folder = tmp_path / "run"
    trained(folder, "resnet50", with_weights=False)
    assert export.main(["--workdir", str(folder), "--output", str(tmp_path)]) == 2
    assert f"{tmp_path}: must be a file to write, but is no file" in capsys.readouterr().err
    output = tmp_path / "net.safetensors"
    assert export.main(["--workdir", str(folder), "--output", str(output)]) == 2
    assert "must hold the final weights" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [folder]
