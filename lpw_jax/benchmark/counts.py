"""What can be counted without a clock: operations, collectives; and why a child failed."""

import math
import re
import subprocess
from collections import defaultdict

_BYTES = {"pred": 1, "f16": 2, "bf16": 2, "f32": 4, "f64": 8}
_BYTES |= {f"{sign}{bits}": bits // 8 for sign in "su" for bits in (8, 16, 32, 64)}
_COLLECTIVE = re.compile(
    r" = (.*?) (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?:-start)?\("
)
_ARRAY = re.compile(r"(\w+)\[([\d,]*)\]")


def wide_resnet_flops(*, depth: int, width: int, num_classes: int) -> int:
    """Floating-point operations of a training step per 32x32 image, counted by hand.

    Two for each multiplication whose factors are both in the image (not in its padding), in
    convolutions and the head; the backward pass takes as many for the inputs' gradients, which the
    first convolution does not need, and again for the weights'. All else is left out.
    """
    forward, first = 0, 0

    def conv(size, inputs, outputs, kernel, stride):
        nonlocal forward
        taps = [
            pixel * stride + tap - kernel // 2
            for pixel in range(-(-size // stride))
            for tap in range(kernel)
        ]
        inside = sum(0 <= place < size for place in taps)
        forward += 2 * inside**2 * inputs * outputs
        return -(-size // stride)

    size, channels = conv(32, 3, 16, 3, 1), 16
    first = forward
    for group in range(3):
        for block in range((depth - 4) // 6):
            features, stride = 16 * 2**group * width, 2 if group and not block else 1
            conv(conv(size, channels, features, 3, stride), features, features, 3, 1)
            if channels != features:
                conv(size, channels, features, 1, stride)
            size, channels = -(-size // stride), features
    forward += 2 * channels * num_classes
    return 3 * forward - first


def collectives(hlo: str) -> dict[str, dict[str, int]]:
    """Collectives of a compiled program's text: how many of each kind, and their results' bytes.

    Those in the body of a loop count once.
    """
    found: dict[str, dict[str, int]] = defaultdict(lambda: {"count": 0, "bytes": 0})
    for results, kind in _COLLECTIVE.findall(hlo):
        found[kind]["count"] += 1
        for dtype, shape in _ARRAY.findall(results):
            sizes = [int(size) for size in shape.split(",") if size]
            found[kind]["bytes"] += math.prod(sizes) * _BYTES[dtype]
    return dict(found)


def last_line(child: subprocess.CompletedProcess[str]) -> str:
    """What a process said last before it failed."""
    lines = f"{child.stdout}\n{child.stderr}".strip().splitlines()
    return lines[-1].strip() if lines else f"exit code {child.returncode}"
