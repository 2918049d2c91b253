"""The reference's state-dict names, as recorded in golden/, to this package's trees."""

import re

import numpy as np


def path_of(name: str) -> tuple[str, ...]:
    """Our path of a reference leaf, without its member: 'adapter.0.bn1...weight' and so on."""
    module, leaf = name.rsplit(".", 1)
    module = re.sub(r"\.(no_coef_modules\.\d+|tied_module)$", "", module)
    stats = {"running_mean": "mean", "running_var": "var"}
    if module == "head":
        return ("head", {"weight": "kernel", "bias": "bias"}[leaf])
    if module == "input_layer":
        return ("conv_in", "kernel")
    if module == "conv_block.2.0":  # in a WRN-10 the third group's only block is an adapter
        return ("bn_out", stats.get(leaf) or {"weight": "scale", "bias": "bias"}[leaf])
    group, part = re.fullmatch(r"adapter\.(\d)\.(\w+)", module).groups()
    part = {"convShortcut": "conv_shortcut"}.get(part, part)
    if part.startswith("conv"):
        leaf = "kernel"
    else:
        leaf = stats.get(leaf) or {"weight": "scale", "bias": "bias"}[leaf]
    return (f"group{group}_block0", part, leaf)


def member_of(name: str) -> int | None:
    """Index of the member, None for a tied leaf."""
    match = re.search(r"no_coef_modules\.(\d+)", name)
    return int(match[1]) if match else None


def to_flax(array: np.ndarray) -> np.ndarray:
    """PyTorch's layout to Flax's: OIHW to HWIO, [out, in] to [in, out]."""
    if array.ndim == 4:
        return array.transpose(2, 3, 1, 0)
    return array.T if array.ndim == 2 else array


def is_statistic(path: tuple[str, ...]) -> bool:
    return path[-1] in ("mean", "var")
