"""torchvision's names and layouts of a network's weights, and ours.

Ours are '/'-joined paths into the network's variables: 'params/group0_block1/bn2/scale' is
torchvision's 'layer1.1.bn2.weight'. PyTorch's convolutions are OIHW, ours HWIO; its linear layers
are [outputs, inputs], ours [inputs, outputs].
"""

import re
from collections.abc import Iterable

import numpy as np

from lpw_jax import registry

COUNTER = "num_batches_tracked"  # of each batch norm; nothing here uses it
LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}


def torch_name(model_name: str, path: str) -> str:
    """torchvision's name of the weight at our `path` ('params/...' or 'batch_stats/...').

    Raises:
      ValueError: torchvision has no network `model_name`.
    """
    module = _MODULES.get(registry.network(model_name).weight_names)
    if module is None:
        known = [name for name, network in registry.NETWORKS.items() if network.weight_names]
        raise ValueError(f"model.name = {model_name!r}: must be one of {', '.join(known)}")
    _, *modules, leaf = path.split("/")
    return ".".join([*map(module, modules), LEAVES[leaf]])


def counters(names: Iterable[str]) -> list[str]:
    """Names of the counters that go with torchvision's `names` in a state dict."""
    ending = "running_mean"
    return [n.removesuffix(ending) + COUNTER for n in names if n.endswith(f".{ending}")]


def modern_name(name: str) -> str:
    """Today's form of a key: torchvision's DenseNet files have 'norm.1' for a layer's 'norm1'."""
    return re.sub(r"(\.denselayer\d+\.(?:norm|conv))\.([12]\.)", r"\1\2", name)


def to_torch(array: np.ndarray) -> np.ndarray:
    """Our layout to PyTorch's; what is no kernel stays as it is."""
    return array.transpose({4: (3, 2, 0, 1), 2: (1, 0)}.get(array.ndim))


def torch_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that an array of our `shape` has in PyTorch."""
    return to_torch(np.broadcast_to(0, shape)).shape


def from_torch(array: np.ndarray) -> np.ndarray:
    """Inverse of `to_torch`."""
    return array.transpose({4: (2, 3, 1, 0), 2: (1, 0)}.get(array.ndim))


def _resnet_module(name: str) -> str:
    if found := re.fullmatch(r"group(\d+)_block(\d+)", name):
        return f"layer{int(found[1]) + 1}.{found[2]}"
    renamed = {
        "conv_in": "conv1",
        "bn_in": "bn1",
        "conv_shortcut": "downsample.0",
        "bn_shortcut": "downsample.1",
        "head": "fc",
    }
    return renamed.get(name, name)


def _densenet_module(name: str) -> str:
    if found := re.fullmatch(r"group(\d+)_layer(\d+)", name):
        return f"features.denseblock{int(found[1]) + 1}.denselayer{int(found[2]) + 1}"
    if found := re.fullmatch(r"transition(\d+)", name):
        return f"features.transition{int(found[1]) + 1}"
    renamed = {
        "conv_in": "features.conv0",
        "bn_in": "features.norm0",
        "bn_out": "features.norm5",
        "head": "classifier",
    }
    return renamed.get(name, name.replace("bn", "norm"))


_MODULES = {"resnet": _resnet_module, "densenet": _densenet_module}
