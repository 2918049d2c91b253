"""What the suites measure: lists of steps, in order of their value."""

import dataclasses
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True)
class Step:
    """One measurement, in a process of its own.

    Attributes:
      name: of its file.
      what: for people.
      config: file in configs/, with its variant.
      minutes: which it may take, on a slow accelerator; a training takes what there is.
      parts: of the benchmark, with commas between; '' for a training by `lpw_jax.main`.
      flags: of its program.
      overrides: '--config.FIELD=VALUE', which win over the user's.
      needs_pytorch: whether the published code and a torch must be there.
    """

    name: str
    what: str
    config: str
    minutes: float
    parts: str = ""
    flags: Sequence[str] = ()
    overrides: Sequence[str] = ()
    needs_pytorch: bool = False


def _types(**values: str) -> list[str]:
    return [f"--config.train.{field}={value}" for field, value in values.items()]


FLOAT32 = _types(compute_dtype="float32", matmul_precision="highest")
TF32 = _types(compute_dtype="float32", matmul_precision="high")
BFLOAT16 = _types(compute_dtype="bfloat16")
MERGED = ("--num_members=1,10", "--member_modes=vmap")
# A ResNet-50's merged members of 2 x 128 images of 224 pixels do not fit.
SCANNED = ("--num_members=1,10", "--member_modes=scan")
BARE = "matmul,step"  # compilation, images/s, memory, part of the matrix-product peak
# A checkpoint every other minute: a rented machine may go at any second.
KEPT = ("--config.checkpoint.every_minutes=2", "--config.checkpoint.every_epochs=0")

WRN, WRN_SGD = "cifar10_bn.py", "cifar10_sgd.py"
RESNET = "imagenet_resnet50.py"

ACCELERATOR = (
    Step(
        "check", "trains as the CPU does, a small network", "digits_bn.py", 5, "check",
        overrides=("--config.train.batch_size=16", "--config.late_phase.num_members=2"),
    ),
    Step(
        "wrn28_10_bfloat16", "WRN-28-10, bfloat16", WRN, 8, BARE,
        ("--num_members=1,10", "--member_modes=vmap,scan"), BFLOAT16,
    ),
    Step("wrn28_10_tf32", "WRN-28-10, TF32", WRN, 5, BARE, MERGED, TF32),
    Step("wrn28_10_float32", "WRN-28-10, float32", WRN, 6, BARE, MERGED, FLOAT32),
    Step("resnet50_bfloat16", "ResNet-50, bfloat16", RESNET, 5, BARE, SCANNED, BFLOAT16),
    Step("resnet50_tf32", "ResNet-50, TF32", RESNET, 5, BARE, SCANNED, TF32),
    Step(
        "pytorch_bfloat16", "WRN-28-10, bfloat16, and the published code", WRN, 9, "pytorch",
        ("--repeats=3",), BFLOAT16, needs_pytorch=True,
    ),
    Step(
        "pytorch_tf32", "WRN-28-10, TF32, and the published code", WRN, 9, "pytorch",
        ("--repeats=3",), TF32, needs_pytorch=True,
    ),
    Step(
        "wrn28_10_program", "WRN-28-10, bfloat16, the whole program", WRN, 6, "start,program",
        ("--seconds=10",), BFLOAT16,
    ),
    Step(
        "imagenet_input", "streamed ImageNet, without a network", RESNET, 4, "input",
        ("--repeats=3",),
    ),
    Step("train_cifar10_bn", "a training of cifar10_bn:fast", f"{WRN}:fast", 0, "", (), KEPT),
    Step("train_cifar10_sgd", "a training of cifar10_sgd:fast", f"{WRN_SGD}:fast", 0, "", (), KEPT),
)  # fmt: skip

SUITES = {"accelerator": ACCELERATOR}

# What makes every step one of seconds on a CPU, to see that the suite runs.
_SMALL = (
    "--config.data.name=digits",
    "--config.data.validation_examples=1309",
    "--config.model.name=wide_resnet",
    "--config.model.depth=10",
    "--config.model.width=1",
    "--config.train.batch_size=16",
    "--config.train.epochs=2",
    "--config.train.anneal_start=0",
    "--config.train.anneal_end=1",
    "--config.late_phase.num_members=2",
)
_SMALL_FLAGS = (
    "--num_members=1", "--member_modes=scan", "--repeats=1", "--seconds=0.1", "--matmul_size=64",
)  # fmt: skip


def small(step: Step) -> Step:
    """The same step, of a WRN-10-1 on scikit-learn's digits instead."""
    release = -1 if step.config.startswith(WRN_SGD) else 1
    overrides = (
        *step.overrides, *_SMALL, f"--config.late_phase.release_epoch={release}",
        "--config.checkpoint.every_minutes=0.01",
    )  # fmt: skip
    flags = (*step.flags, *_SMALL_FLAGS) if step.parts else ()
    return dataclasses.replace(step, what=f"{step.what} (small)", flags=flags, overrides=overrides)
