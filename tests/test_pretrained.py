"""Weight files: exact after import, the same after a round trip, and named faults."""

import builtins
import hashlib
import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
import torchvision_weights
from flax.traverse_util import flatten_dict

from lpw_jax import models
from lpw_jax.errors import UserError
from lpw_jax.models.convolution import cpu_conv_general_dilated
from lpw_jax.weights import pretrained, torchvision_names

GOLDEN = Path(__file__).parent / "golden" / "import_logits.npz"


def load(path, model_name="resnet50", num_classes=3):
    return pretrained.load_variables(path, model_name=model_name, num_classes=num_classes)


def assert_same(found, expected):
    found, expected = (flatten_dict(tree, sep="/") for tree in (found, expected))
    assert list(found) == list(expected)
    for path, array in expected.items():
        assert found[path].dtype == array.dtype, path
        np.testing.assert_array_equal(found[path], array, err_msg=path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet152", "densenet161"])  # resnet50: test_golden_finetune
def test_imported_networks_give_torchvisions_logits(float64, tmp_path, name):
    golden = np.load(GOLDEN)
    entries = torchvision_weights.state_dict(name, 1000)
    assert set(entries) == set(golden[f"{name}/names"].tolist())
    path = tmp_path / "weights.safetensors"
    safetensors.numpy.save_file(entries, path)
    del entries
    variables, _ = load(path, name, 1000)
    path.unlink()  # half a gigabyte
    images = np.random.default_rng(7).standard_normal((4, 3, 96, 96)).transpose(0, 2, 3, 1)
    model = models.create(
        name,
        num_classes=1000,
        dtype=jnp.float64,
        conv_general_dilated=cpu_conv_general_dilated,
    )
    logits = np.asarray(jax.jit(model.apply)(variables, images))
    recorded = golden[f"{name}/logits"]
    assert logits.dtype == np.float64
    assert np.abs(logits - recorded).max() <= 1e-9 * np.abs(recorded).max()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet50", "densenet161"])
def test_torchvisions_form_and_our_own_lose_nothing(tmp_path, name):
    path, again = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    entries = torchvision_weights.state_dict(name, 3)
    entries = {n: a.astype(np.float32) if a.ndim else a for n, a in entries.items()}
    safetensors.numpy.save_file(entries, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    variables, what = load(path, name)
    assert what == {
        "file": str(path),
        "sha256": digest,
        "model": name,
        "format": "torchvision safetensors",
        "source": None,
        "taken": "",
        "published": None,
    }
    exported = pretrained.encode_torchvision(variables, model_name=name)
    found = safetensors.numpy.load(exported)
    assert found.keys() == entries.keys()
    for key, array in entries.items():
        assert found[key].dtype == array.dtype and found[key].shape == array.shape, key
        np.testing.assert_array_equal(found[key], array, err_msg=key)
    source = {"file": str(path), "sha256": digest}
    again.write_bytes(pretrained.encode_variables(variables, model_name=name, source=source))
    ours, what = load(again, name)
    assert_same(ours, variables)
    assert (what["format"], what["source"]) == ("lpw_jax", source)


def test_names_and_layouts_are_those_of_torchvision():
    names = {
        ("resnet50", "params/group2_block5/conv2/kernel"): "layer3.5.conv2.weight",
        ("resnet152", "params/group0_block0/bn_shortcut/scale"): "layer1.0.downsample.1.weight",
        ("resnet50", "batch_stats/bn_in/var"): "bn1.running_var",
        ("densenet161", "params/group3_layer23/bn1/bias"): (
            "features.denseblock4.denselayer24.norm1.bias"
        ),
        (
            "densenet161",
            "batch_stats/transition2/bn/mean",
        ): "features.transition3.norm.running_mean",
        ("densenet161", "params/head/kernel"): "classifier.weight",
    }
    for (model_name, path), name in names.items():
        assert torchvision_names.torch_name(model_name, path) == name
    kernel = np.arange(120).reshape(2, 3, 4, 5)  # OIHW
    ours = torchvision_names.from_torch(kernel)
    assert ours.shape == (4, 5, 3, 2) and ours[3, 1, 2, 0] == kernel[0, 2, 3, 1]
    np.testing.assert_array_equal(torchvision_names.to_torch(ours), kernel)
    assert torchvision_names.from_torch(kernel[0, 0]).shape == (5, 4)


@pytest.mark.slow
def test_densenets_old_keys_are_todays(tmp_path):
    whole = torchvision_weights.zeros("densenet161", 3)  # below, each of its own small number
    entries = {name: array + np.float16(i) for i, (name, array) in enumerate(whole.items())}
    entries |= dict.fromkeys(torchvision_names.counters(entries), np.zeros((), np.int64))
    path, old_path = tmp_path / "new.safetensors", tmp_path / "old.safetensors"
    safetensors.numpy.save_file(entries, path)
    old = {
        re.sub(r"(denselayer\d+\.[a-z]+)([12])", r"\1.\2", name): array
        for name, array in entries.items()
        if not name.endswith("num_batches_tracked")
    }
    assert "features.denseblock1.denselayer2.norm.1.running_var" in old
    safetensors.numpy.save_file(old, old_path)
    assert_same(load(old_path, "densenet161")[0], load(path, "densenet161")[0])
    old["features.denseblock1.denselayer2.norm2.bias"] = np.zeros(192, np.float16)
    safetensors.numpy.save_file(old, old_path)
    with pytest.raises(UserError, match="denselayer2.norm2.bias is there twice"):
        load(old_path, "densenet161")


@pytest.mark.slow
def test_faults_of_a_state_dict_are_named(tmp_path):
    path = tmp_path / "weights.safetensors"
    whole = torchvision_weights.zeros("resnet50", 3)

    def fault(**changes):
        entries = whole | {name.replace("__", "."): array for name, array in changes.items()}
        safetensors.numpy.save_file({n: a for n, a in entries.items() if a is not None}, path)
        with pytest.raises(UserError) as error:
            load(path)
        assert str(error.value).startswith(f"{path}: must hold ")
        return str(error.value)

    half = np.zeros(64, np.float16)
    text = fault(bn1__bias=None, fc__gain=half, layer1__0__bn1__weight=half[:3])
    assert text.endswith(
        "the weights of resnet50; missing: bn1.bias; unknown: fc.gain; "
        "of another shape: layer1.0.bn1.weight [3] instead of [64]"
    )
    assert "unknown: stem.num_batches_tracked" in fault(stem__num_batches_tracked=half)
    many = fault(**{name.replace(".", "__"): None for name in whole if name.startswith("layer4")})
    assert re.search(r"missing: (layer4\S+, ){4}layer4\S+ and \d\d more$", many)
    for value in (np.nan, np.inf):
        bad = np.append(half[1:], np.float16(value))
        assert "finite" in (text := fault(bn1__bias=bad)) and text.endswith("not so: bn1.bias")
    assert "not so: bn1.bias" in fault(bn1__bias=np.full(64, 1e39))  # not in float32
    assert "not so: bn1.bias" in fault(bn1__bias=np.zeros(64, np.int32))
    assert "variances >= 0; not so: bn1.running_var" in fault(bn1__running_var=half - 1)
    safetensors.numpy.save_file(whole, path)
    assert {leaf.dtype for leaf in jax.tree.leaves(load(path)[0])} == {np.dtype(np.float32)}
    with pytest.raises(UserError, match=r"shape: fc\.\S+ \[3(, 2048)?\] instead of \[1000"):
        load(path, num_classes=1000)
    with pytest.raises(UserError, match=r"weights of resnet152; missing: layer2.4.* more$"):
        load(path, "resnet152")


def test_our_own_format_is_of_one_network_and_version(tmp_path):
    path = tmp_path / "weights.safetensors"
    entries = {"params/head/bias": np.zeros(3, np.float32)}
    for own, words in (
        ({"version": 1, "model": "resnet152", "source": None}, "must hold .* of resnet152"),
        ({"version": 9, "model": "resnet50", "source": None}, "must have version 1 .* has 9"),
        ({"version": 1, "model": "resnet50", "source": None}, "must hold .* missing: .* more$"),
        ({"version": 1, "model": "resnet50", "source": {"file": "a"}}, "cannot be read"),
        ({"model": "resnet50"}, "cannot be read"),
    ):
        safetensors.numpy.save_file(entries, path, {"lpw_jax": json.dumps(own)})
        with pytest.raises(UserError, match=f"^{path}:? {words}"):
            load(path)


def test_files_that_are_no_weights_are_refused(tmp_path):
    path = tmp_path / "weights.safetensors"
    with pytest.raises(UserError, match=f"^{path}: must be a file of weights, but there is none"):
        load(path)
    with pytest.raises(UserError, match=f"^{tmp_path}: must be a file of weights, but is no file"):
        load(tmp_path)
    with pytest.raises(UserError, match="model.name = 'wide_resnet': .* resnet50"):
        load(path, "wide_resnet")
    good = safetensors.numpy.save({"bn1.bias": np.zeros(64, np.float32)})
    for content, words in (
        (b"", ": must be weights as .safetensors"),
        (b"<html>not found</html>", ": must be weights as .safetensors"),
        (good[:-1], " cannot be read: .*fetch or convert it again"),
        (good[:30], " cannot be read: .*fetch or convert it again"),
        (good[:8] + b"{]" + good[10:], " cannot be read: "),
        (good.replace(b"F32", b"B16"), " cannot be read: |: must hold numbers"),
        (
            (2).to_bytes(8, "little") + b"{}",
            ": must hold the weights of resnet50; missing: .* more",
        ),
    ):
        path.write_bytes(content)
        with pytest.raises(UserError, match=f"^{path}{words}"):
            load(path)
    with path.open("wb") as file:
        file.truncate(5 << 30)  # takes no room on the disk
    with pytest.raises(UserError, match="at most 4 GiB, but has 5.0"):
        load(path)


def test_files_are_reproducible():
    variables = {"params": {"head": {"bias": np.arange(3)}, "bn_in": {"scale": np.ones(2)}}}
    files = {
        pretrained.encode_variables(
            variables, model_name="resnet50", source={"file": "a.pth", "sha256": "12"}
        )
        for _ in range(20)
    }
    assert len(files) == 1


def test_a_pth_file_needs_pytorch_and_says_so(tmp_path, monkeypatch):
    path, original = tmp_path / "weights.pth", builtins.__import__

    def without_torch(name, *rest):
        if name == "torch":
            raise ImportError("No module named 'torch'")
        return original(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without_torch)
    path.write_bytes(b"PK\x03\x04")
    with pytest.raises(UserError, match=r"pip install '\.\[torch\]'"):
        load(path)


def test_a_pth_file_holds_what_the_safetensors_file_holds(tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "weights.pth"
    entries = torchvision_weights.state_dict("resnet50", 3)
    safetensors.numpy.save_file(entries, tmp_path / "weights.safetensors")
    tensors = {name: torch.from_numpy(array) for name, array in entries.items()}
    expected, _ = load(tmp_path / "weights.safetensors")
    for old in (False, True):
        torch.save(tensors, path, _use_new_zipfile_serialization=not old)
        variables, what = load(path)
        assert_same(variables, expected)
        assert what["format"] == "torchvision pth"
    torch.save({name: t.bfloat16() for name, t in tensors.items() if t.ndim}, path)
    assert {leaf.dtype for leaf in jax.tree.leaves(load(path)[0])} == {np.dtype(np.float32)}
    for content, words in (
        ({"state_dict": tensors["fc.bias"], "epoch": 3}, "missing: .*; unknown: state_dict"),
        (tensors["fc.bias"], "must hold a state dict"),
        ({"fc.bias": Path("x")}, "damaged, or holds other things than tensors"),
    ):
        torch.save(content, path)
        with pytest.raises(UserError, match=words):
            load(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=f"^{path} cannot be read: it is damaged"):
        load(path)
