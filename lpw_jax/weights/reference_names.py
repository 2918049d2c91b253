"""Names of the published PyTorch code's Wide ResNet, whose layers hold a copy for each member.

Ours are '/'-joined paths into the network's parameters and statistics. A layer of the published
code has its copies in `no_coef_modules.K`: late-phase layers one for each member, shared ones only
number 0. While the network is tied, late-phase layers use another copy, `tied_module`, which stays
in the state dict after the release, unused. So 'group0_block1/bn2/scale' of member 3 is
'conv_block.0.0.bn2.no_coef_modules.3.weight'. A layer of templates has members' `coefficients.K`
instead, or `tied_coef`, and its bank, which a state dict repeats for every layer that uses it.
Layouts are PyTorch's, as in `torchvision_names`.
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping

from lpw_jax.weights.torchvision_names import LEAVES

TIED = "tied_module"
VALUES = "/values"  # ends our paths of coefficients, behind that of the kernel they make
_MEMBER = r"\.(?:no_coef_modules|coefficients)\.(\d+)(?:\.|$)"


@dataclasses.dataclass(frozen=True)
class Architecture:
    """Size of a Wide ResNet: 6n + 4 layers, widening factor, outputs and members K."""

    depth: int
    width: int
    num_classes: int
    num_members: int


def member(k: int) -> str:
    """The copy of member `k`; shared layers have that of member 0 only."""
    return f"no_coef_modules.{k}"


def reference_name(path: str, copy: str, *, depth: int) -> str:
    """The published code's name of the weight, coefficients or statistic at our `path`.

    `copy` is `member(k)` or `TIED`, `depth` the network's.
    """
    *modules, leaf = path.removesuffix(VALUES).split("/")
    layer = ".".join(_module(name, depth) for name in modules)
    if path.endswith(VALUES):
        own = "tied_coef" if copy == TIED else copy.replace("no_coef_modules", "coefficients")
        return f"{layer}.{own}"
    return f"{layer}.{copy}.{LEAVES[leaf]}"


def bank_names(path: str, *, depth: int) -> tuple[str, str]:
    """Names of the bank that the layer with the kernel at our `path` uses, and of its biases."""
    *modules, _ = path.removesuffix(VALUES).split("/")
    layer = ".".join(_module(name, depth) for name in modules)
    return f"{layer}.bank.templates.weight", f"{layer}.bank.templates.bias"


def is_tied(name: str) -> bool:
    """Whether this is the published code's name of a tied copy."""
    return f".{TIED}." in name or name.endswith(".tied_coef")


# The first convolution behind the input layer, of a network without templates and with them.
_FIRST = (f"adapter.0.conv1.{member(0)}.weight", "adapter.0.conv1.bank.templates.weight")


def telling(names: Iterable[str]) -> set[str]:
    """A name that each of the networks has whose weights `names` are, perhaps with prefixes."""
    return {_FIRST[0] if any(name.endswith(_FIRST[0]) for name in names) else _FIRST[1]}


def architecture(shapes: Mapping[str, tuple[int, ...]]) -> Architecture:
    """Reads the size of the network from the `shapes` of a state dict by name.

    Members are 1 if there is a tied copy only.

    Raises:
      ValueError: there are none of the names that tell it.
    """
    plain = _FIRST[0]
    first = plain if plain in shapes else _FIRST[1]
    heads = [
        shape
        for name, shape in shapes.items()
        if re.fullmatch(rf"head\.({TIED}|no_coef_modules\.\d+|bank\.templates)\.weight", name)
    ]
    for what, shape in ((plain, shapes.get(first)), ("head.*.weight", (heads or [None])[0])):
        if not shape:
            raise ValueError(f"there is no {what}")
    blocks = {
        found[1] for name in shapes if (found := re.match(r"conv_block\.0\.(\d+)\.conv1\.", name))
    }
    members = [int(found[1]) for name in shapes if (found := re.search(_MEMBER, name))]
    return Architecture(
        depth=6 * (len(blocks) + 1) + 4,
        width=shapes[first][0] // 16,
        num_classes=heads[0][0],
        num_members=1 + max(members),
    )


def _module(name: str, depth: int) -> str:
    if found := re.fullmatch(r"group(\d)_block(\d+)", name):
        group, block = map(int, found.groups())
        return f"conv_block.{group}.{block - 1}" if block else f"adapter.{group}"
    renamed = {
        "conv_in": "input_layer",
        "conv_shortcut": "convShortcut",
        # Behind the blocks of the last group, whose first is an adapter.
        "bn_out": f"conv_block.2.{(depth - 4) // 6 - 1}",
    }
    return renamed.get(name, name)
