"""The reference's state-dict names, as recorded in golden/, to this package's trees."""

import re

import numpy as np


def path_of(name: str) -> tuple[str, ...]:
    """Our path of a reference leaf, without its member: 'adapter.0.bn1...weight' and so on.

    Coefficients of templates have the path of the kernel that they make, a bank that of the kernel
    in whose place it is.
    """
    module, leaf = name.rsplit(".", 1)
    if match := re.fullmatch(r"(.*)\.(tied_coef|coefficients\.\d+|bank\.templates\.weight)", name):
        module, leaf = match[1], "weight"
    module = re.sub(r"\.(no_coef_modules\.\d+|tied_module)$", "", module)
    stats = {"running_mean": "mean", "running_var": "var"}
    if module == "head":
        return ("head", {"weight": "kernel", "bias": "bias"}[leaf])
    if module == "input_layer":
        return ("conv_in", "kernel")
    if match := re.fullmatch(r"adapter\.(\d)\.(\w+)", module):
        block, part = f"group{match[1]}_block0", match[2]
    elif match := re.fullmatch(r"conv_block\.(\d)\.(\d+)\.(\w+)", module):
        block, part = f"group{match[1]}_block{int(match[2]) + 1}", match[3]
    else:  # the last entry of the last group
        return ("bn_out", stats.get(leaf) or {"weight": "scale", "bias": "bias"}[leaf])
    part = {"convShortcut": "conv_shortcut"}.get(part, part)
    if part.startswith("conv"):
        leaf = "kernel"
    else:
        leaf = stats.get(leaf) or {"weight": "scale", "bias": "bias"}[leaf]
    return (block, part, leaf)


def member_of(name: str) -> int | None:
    """Index of the member, None for a tied leaf."""
    match = re.search(r"(?:no_coef_modules|coefficients)\.(\d+)", name)
    return int(match[1]) if match else None


def to_flax(array: np.ndarray) -> np.ndarray:
    """PyTorch's layout to Flax's: OIHW to HWIO, [out, in] to [in, out]; templates likewise."""
    if array.ndim == 5:
        return array.transpose(1, 2, 3, 0, 4)
    if array.ndim == 4:
        return array.transpose(2, 3, 1, 0)
    return array.T if array.ndim == 2 else array


def is_statistic(path: tuple[str, ...]) -> bool:
    return path[-1] in ("mean", "var")
