"""What the registry says of each network and data set. Imports nothing heavy."""

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Published:
    """torchvision's original ("V1") ImageNet weights of one network.

    Attributes:
      file: its name; it ends in the first 8 hex digits of the file's SHA-256.
      accuracy: top-1 on the 50,000 validation images in percent, as torchvision states it.
    """

    file: str
    accuracy: float

    @property
    def sha256_start(self) -> str:
        """The first 8 hex digits of the file's SHA-256."""
        return self.file.rpartition("-")[2].removesuffix(".pth")


@dataclasses.dataclass(frozen=True)
class Network:
    """A network.

    Attributes:
      builder: 'module:function' that gives the flax module.
      arguments: what the builder is always called with.
      settings: fields of `config.model` that it takes, too.
      title: what tables call it, as a format of those fields and the name.
      published: torchvision's weights, None if there are none.
      weight_names: whose names the weights have in PyTorch, of `weights.torchvision_names`.
      is_reference: whether it is that of the published CIFAR code, whose depth is 6n + 4.
      reads_text: whether it is one of bytes, which carries a state on.
    """

    builder: str
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    settings: tuple[str, ...] = ()
    title: str = "{name}"
    published: Published | None = None
    weight_names: str = ""
    is_reference: bool = False
    reads_text: bool = False


@dataclasses.dataclass(frozen=True)
class Data:
    """A data set.

    Attributes:
      loader: 'module:function' that gives a `data.Dataset` or a `data.on_disk.OnDisk`, called with
        those options of `data.load_dataset` that it takes.
      num_classes: None if only the data themselves tell it, and the shape of images.
      side: of the images in pixels; None for `data.image_size`.
      mean, std: per channel on the scale 0..1; () if the loader or the images tell them.
      url: what tfds downloads, or what tells whether there is a network.
      opening: how tfds' own description begins.
      ood: the data set that stands for 'CIFAR' among the out-of-distribution sets; '' if none are
        defined.
      corrupted: archive of corrupted test images; '' if there is none.
      has_crops: training images are random crops, so that `train.crop_padding` and `train.cutout`
        must be 0.
      is_prepared: whether `lpw_jax.data prepare` prepares it.
      archives: whether it is prepared from archives that must be there, not downloaded.
      is_text: whether it is a text, a `data.text.Text`, of which a network reads the bytes.
    """

    loader: str
    num_classes: int | None = None
    side: int | None = 32
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    url: str = ""
    opening: str = ""
    ood: str = ""
    corrupted: str = ""
    has_crops: bool = False
    is_prepared: bool = False
    archives: bool = False
    is_text: bool = False

    @property
    def is_known(self) -> bool:
        """Whether classes and image shape are known before anything is loaded."""
        return self.num_classes is not None
