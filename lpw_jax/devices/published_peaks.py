"""What vendors publish of accelerators: upper bounds, which nothing here was measured against."""

import dataclasses
import re


@dataclasses.dataclass(frozen=True)
class Peaks:
    """Of one device, without sparsity.

    Attributes:
      name: as in tables.
      kinds: pattern of JAX's `device_kind`.
      bfloat16, tf32, float32: FLOP/s of matrix products in each precision; None: it has none such.
        float32 is that of `matmul_precision='highest'`: on TPUs six passes in bfloat16.
      bandwidth: of its memory, bytes/s.
      source: where it is published.
    """

    name: str
    kinds: str
    bfloat16: float
    tf32: float | None
    float32: float
    bandwidth: float
    source: str

    def is_kind(self, device_kind: str) -> bool:
        """Whether JAX calls this device so."""
        return re.fullmatch(self.kinds, device_kind) is not None


ACCELERATORS = (
    Peaks(
        "H100 SXM", "NVIDIA H100 80GB HBM3", 989.4e12, 494.7e12, 66.9e12, 3.35e12,
        "NVIDIA, H100 Tensor Core GPU Architecture and data sheet",
    ),
    Peaks(
        "A100 SXM 80 GB", "NVIDIA A100-SXM4-80GB", 312e12, 156e12, 19.5e12, 2.039e12,
        "NVIDIA, A100 80GB data sheet",
    ),
    Peaks(
        "TPU v4", "TPU v4", 275e12, None, 275e12 / 6, 1.2e12,
        "Google Cloud documentation, TPU v4",
    ),
    Peaks(
        "TPU v5e", "TPU v5 ?(lite|e)", 197e12, None, 197e12 / 6, 0.819e12,
        "Google Cloud documentation, TPU v5e",
    ),
)  # fmt: skip


def of(device_kind: str) -> Peaks | None:
    """The published figures of a device that JAX calls so, None if they are not known here."""
    return next((peaks for peaks in ACCELERATORS if peaks.is_kind(device_kind)), None)


def float32_note(
    *, platform: str, device_kind: str, compute_dtype: str, matmul_precision: str
) -> str:
    """What float32 without TF32 costs on a GPU, and what to set, in one line; elsewhere ''.

    Args:
      platform, device_kind: of the device, as JAX names them.
      compute_dtype, matmul_precision: as in the config's section `train`.
    """
    on_gpu = platform in ("gpu", "cuda")
    if not on_gpu or (compute_dtype, matmul_precision) != ("float32", "highest"):
        return ""
    peaks = of(device_kind)
    if peaks:
        of_tf32, of_bfloat16 = (
            f", at most {rate / peaks.float32:.1f} times as fast by published peaks"
            for rate in (peaks.tf32, peaks.bfloat16)
        )
    else:
        of_tf32, of_bfloat16 = ", on most GPUs some times as fast", ", faster still"
    return (
        "float32 products do without tensor cores here (no TF32); "
        f"--config.train.matmul_precision=high takes TF32{of_tf32}, "
        f"--config.train.compute_dtype=bfloat16 bfloat16{of_bfloat16}"
    )
