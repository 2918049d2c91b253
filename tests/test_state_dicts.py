"""Weights as users of PyTorch have them: wrapped, nested, beside others, in narrow numbers."""

import argparse
import functools
import re

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from lpw_jax.config import load_config
from lpw_jax.errors import ConfigError, UserError
from lpw_jax.files import storage
from lpw_jax.weights import (
    pretrained,
    reference_names,
    reference_weights,
    state_dicts,
    weight_files,
)

NET = {name: np.full(2, i, np.float32) for i, name in enumerate(("conv1.weight", "fc.weight"))}
OTHER = {name: array + 10 for name, array in NET.items()}
choose = functools.partial(state_dicts.choose, place="FILE")


def under(prefix, net=NET):
    return {prefix + name: array for name, array in net.items()}


OPTIMIZER = {f"optimizer.state.{i}.momentum_buffer": np.zeros(2) for i in range(2)}
ONE = {
    "": {},
    "module.": {},
    "_orig_mod.": {},
    "module._orig_mod.": {},
    "_orig_mod.module.": {"n_averaged": np.int64(3)},
    "model.": OPTIMIZER,
    "net/": {"epoch": np.int64(3)},
    "state_dict.module.": OPTIMIZER,
    "state_dict.model.backbone.": {"state_dict.loss.weight": np.ones(3), **OPTIMIZER},
    "model_ema.module.": {"model_ema.n_averaged": np.int64(3)},
    "checkpoint.ema_state_dict._fsdp_wrapped_module.": {},
}


@pytest.mark.parametrize("prefix", ONE)
def test_one_state_dict_is_found_wherever_it_is(prefix):
    found = choose(under(prefix) | ONE[prefix], set(NET))
    assert found.entries.keys() == NET.keys()
    assert all(found.entries[name] is array for name, array in NET.items())
    where = re.split(r"[./]", prefix)
    plain = [part for part in where if part and part not in state_dicts._WRAPPERS]
    assert (found.taken == "") == (not prefix) and "\n" not in found.taken
    assert not plain or f"under {'.'.join(plain)!r}" in found.taken
    assert ("without the wrappers" in found.taken) == (len(plain) < len(where) - 1)
    for name in ONE[prefix]:
        assert re.search(rf"leaving out .*{name.partition('.')[0]}", found.taken)


@pytest.mark.parametrize(
    ("first", "second", "keys"),
    [
        ("model.", "model_ema.", {"model": NET, "model_ema": OTHER}),
        ("state_dict.module.", "state_dict_ema.", {"state_dict": NET, "state_dict_ema": OTHER}),
        ("", "ema.", {".": NET, "ema": OTHER}),
        ("", "module.", {".": NET, "module": OTHER}),
        ("net.", "net.ema.", {"net": NET, "net.ema": OTHER}),
        ("a.module.", "b._orig_mod.", {"a": NET, "b.": OTHER, "b._orig_mod": OTHER}),
    ],
)
def test_of_several_one_must_be_chosen(first, second, keys):
    entries = under(first) | under(second, OTHER)
    with pytest.raises(UserError, match=r"^FILE: must hold .* one network, but holds 2, .* --key"):
        choose(entries, set(NET))
    for key, net in keys.items():
        found = choose(entries, set(NET), key=key).entries
        assert {name: float(array[0]) for name, array in found.items()} == {
            name: float(array[0]) for name, array in net.items()
        }, key
    with pytest.raises(UserError, match="^model.pretrained_key = 'none': FILE must hold names"):
        choose(entries, set(NET), key="none", field="model.pretrained_key")


def test_what_a_state_dict_lacks_is_said_of_the_likeliest_one():
    entries = under("model.") | OPTIMIZER
    del entries["model.fc.weight"]
    assert choose(entries, set(NET)).entries.keys() == {"conv1.weight"}
    assert choose(OPTIMIZER, set(NET)).entries == OPTIMIZER
    assert choose(under("model.") | {"model.extra": 1}, set(NET)).entries.keys() > NET.keys()


def test_dicts_in_dicts_are_made_flat_even_if_they_are_in_themselves():
    tree = {"model": {"a": 1.0, "b": {"c": 2.0}}, "epoch": "3", "state": {0: {"buffer": 3.0}}}
    tree["model"]["self"] = tree
    found = state_dicts.flat(tree, lambda value: isinstance(value, float))
    assert found == {"model.a": 1.0, "model.b.c": 2.0, "state.0.buffer": 3.0}


@pytest.mark.parametrize("ending", ["safetensors", "npz"])
@pytest.mark.parametrize("dtype", [jnp.bfloat16, np.float16, np.float32, np.float64])
def test_numbers_of_all_widths_are_read_in_every_format(tmp_path, ending, dtype):
    path = storage.path(tmp_path / f"weights.{ending}")
    numbers = np.array([-1.5, 0, 0.25, 96])
    entries = {name: numbers.astype(dtype) for name in under("module.")}
    write = {"safetensors": safetensors.numpy.save_file, "npz": lambda e, p: np.savez(p, **e)}
    write[ending](entries, path)
    found, _, form = weight_files.decode(path.read_bytes(), path)
    arrays = pretrained.floats(path, choose(found, set(NET)).entries)
    assert form == ending and arrays.keys() == NET.keys()
    for array in arrays.values():
        assert array.dtype == (np.float64 if dtype == np.float64 else np.float32)
        np.testing.assert_array_equal(array, numbers)


def test_networks_of_the_published_code_are_found_alike(tmp_path):
    names = ("head.no_coef_modules.0.weight", reference_names._FIRST[0])
    net = {names[0]: np.zeros((10, 64), np.float32), names[1]: np.zeros((16, 16, 3, 3), np.float32)}
    path = tmp_path / "model.npz"
    np.savez(path, **under("model.module.", net), **under("swa_model.", net))
    with pytest.raises(UserError, match="holds 2, model and swa_model; choose one with --key"):
        reference_weights.StateDict(path)
    file = reference_weights.StateDict(path, key="swa_model")
    assert file.architecture.num_classes == 10 and "under 'swa_model'" in file.taken


def test_a_key_needs_a_file():
    flags = ["--config.model.pretrained_key=ema"]
    with pytest.raises(ConfigError, match="pretrained_key = 'ema': needs model.pretrained"):
        load_config("configs/imagenet_resnet50.py", flags)
    load_config("configs/imagenet_resnet50.py", [*flags, "--config.model.pretrained=a.pth"])


def test_checkpoints_of_pytorch_are_read(tmp_path):
    torch = pytest.importorskip("torch")
    path = storage.path(tmp_path / "checkpoint.pth")
    net = {name: torch.from_numpy(array).bfloat16() for name, array in NET.items()}
    ema = {f"module.{name}": torch.from_numpy(array).half() for name, array in OTHER.items()}
    beside = {
        "epoch": 3,
        "args": argparse.Namespace(lr=0.1),
        "best": np.float64(0.7),
        "optimizer": {"state": {0: {"momentum_buffer": torch.zeros(3)}}, "param_groups": []},
    }

    def load(tree, key=""):
        torch.save(tree, path)
        found = choose(weight_files.decode(path.read_bytes(), path)[0], set(NET), key=key)
        return {name: a.tolist() for name, a in pretrained.floats(path, found.entries).items()}

    ours, theirs = ({name: a.tolist() for name, a in tree.items()} for tree in (NET, OTHER))
    assert load({"state_dict": net, **beside}) == ours
    both = {"model": net, "model_ema": {"n_averaged": torch.tensor(3), **ema}, **beside}
    with pytest.raises(UserError, match="holds 2, model and model_ema; choose one with --key"):
        load(both)
    assert load(both, "model") == ours and load(both, "model_ema") == theirs
    for object_, name in ((torch.nn.Linear(2, 2), r"torch\.\S+Linear"), (path, r"etils\.\S+")):
        with pytest.raises(UserError, match=rf"other things than tensors \({name}\)"):
            load({"model": object_})
