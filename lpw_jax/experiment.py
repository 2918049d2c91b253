"""What a configuration describes: its data, its network, its devices."""

import contextlib
import dataclasses
import math
import zlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from ml_collections import ConfigDict

from lpw_jax import data, models, registry
from lpw_jax.data import Dataset, in_memory, ood, overlap
from lpw_jax.data.on_disk import OnDisk
from lpw_jax.data.source import Source
from lpw_jax.data.text import Text
from lpw_jax.data.text_sources import Streams, Windows
from lpw_jax.devices import jax_settings
from lpw_jax.display import console
from lpw_jax.errors import UserError
from lpw_jax.method.keys import make_key
from lpw_jax.models.convolution import on_cpus
from lpw_jax.weights import pretrained, weight_files

AnyDataset = Dataset | OnDisk | Text


def build_model(
    config: ConfigDict, num_classes: int, *, member_mode: str | None = None
) -> nn.Module:
    """The network of `config`, without a device axis; `member_mode` is by default the config's."""
    mode = member_mode or config.late_phase.member_mode
    dtype, on_cpu = jnp.dtype(config.train.compute_dtype), jax.default_backend() == "cpu"
    return models.create(
        config.model.name,
        depth=config.model.depth,
        width=config.model.width,
        num_classes=num_classes,
        dtype=dtype,
        precision=config.train.matmul_precision,
        conv_general_dilated=on_cpus(dtype, merged=mode == "vmap") if on_cpu else None,
        remat=config.train.remat,
        **(_of_text(config) if registry.network(config.model.name).reads_text else {}),
    )


def _of_text(config: ConfigDict) -> dict[str, int]:
    return {
        "embedding": config.model.embedding,
        "batch_size": config.train.batch_size,
        "context": config.data.context,
    }


def image_shape(config: ConfigDict) -> tuple[int, ...]:
    """[H, W, C] of what the network sees, of texts [T]; own data are loaded for it."""
    known = registry.data(config.data.name)
    if known.is_text:
        return (config.data.sequence_length,)
    if not known.is_known:
        return load_dataset(config).image_shape
    side = known.side or config.data.image_size
    return side, side, 3


def num_classes(config: ConfigDict) -> int:
    """Of the data set that `config` names; own data are loaded for it."""
    return registry.data(config.data.name).num_classes or load_dataset(config).num_classes


def pinned(config: ConfigDict) -> contextlib.AbstractContextManager[None]:
    """`jax_settings.pinned` as `config` says: all that a program computes is computed inside it."""
    train = config.train
    return jax_settings.pinned(
        compute_dtype=train.compute_dtype, matmul_precision=train.matmul_precision
    )


def purpose_key(seed: int, purpose: str) -> jax.Array:
    """Key for one use of randomness: 'init', 'augment' or 'release'."""
    return jax.random.fold_in(make_key(seed), zlib.crc32(purpose.encode()))


def pretrained_weights(
    config: ConfigDict, *, num_classes: int
) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """What `pretrained.load_variables` gives for `config`, None if it asks for random weights.

    `num_classes` are those of the network.

    Raises:
      UserError: the weights cannot be fetched or read, or are not those of the network.
    """
    name, file = config.model.name, config.model.pretrained
    if not file:
        return None
    if file == pretrained.PUBLISHED_NAME:
        weight_files.import_torch()  # before anything is fetched that could not be read
        from lpw_jax.weights import weight_download  # `requests`: only where it is used

        file = weight_download.fetch(name)
    variables, what = pretrained.load_variables(
        file,
        model_name=name,
        num_classes=num_classes,
        key=config.model.pretrained_key,
        field="model.pretrained_key",
    )
    if what["taken"]:
        console.say(what["taken"])
    return variables, what


def train_source(config: ConfigDict, dataset: AnyDataset) -> Source:
    """Training examples as `config` augments them."""
    if isinstance(dataset, Text):
        return Streams(dataset, seed=config.seed)
    dtype = jnp.dtype(config.train.compute_dtype)
    if isinstance(dataset, OnDisk):
        return dataset.train_source(seed=config.seed, flip=config.train.flip, dtype=dtype)
    return in_memory.TrainingSet(
        dataset.train_images,
        dataset.train_labels,
        key=purpose_key(config.seed, "augment"),
        crop_padding=config.train.crop_padding,
        flip=config.train.flip,
        cutout=config.train.cutout,
        random_erasing=config.train.random_erasing,
        mean=dataset.mean,
        std=dataset.std,
        dtype=dtype,
    )


def evaluation_sources(config: ConfigDict, dataset: AnyDataset) -> dict[str, Source]:
    """Examples to be evaluated: `test` and, if some are held out, `validation`."""
    if isinstance(dataset, Text):
        return {split: Windows(dataset, split) for split in ("test", "validation")}
    if isinstance(dataset, OnDisk):
        return dataset.evaluation_sources(dtype=jnp.dtype(config.train.compute_dtype))
    sources = {"test": image_source(config, dataset, dataset.test_images, dataset.test_labels)}
    if len(dataset.validation_labels):
        held_out = dataset.validation_images, dataset.validation_labels
        sources["validation"] = image_source(config, dataset, *held_out)
    return sources


def training_images(config: ConfigDict, dataset: AnyDataset) -> Source:
    """Training examples without augmentation, as those that are evaluated.

    Raises:
      UserError: there are none.
    """
    if isinstance(dataset, OnDisk):
        return dataset.training_images(dtype=jnp.dtype(config.train.compute_dtype))
    return image_source(config, dataset, dataset.train_images, dataset.train_labels)


def unlabelled_source(config: ConfigDict, dataset: Dataset, images: np.ndarray) -> Source:
    """Other images, normalised as those of `dataset`."""
    return image_source(config, dataset, images, np.full(len(images), -1, np.int32))


def image_source(
    config: ConfigDict, dataset: Dataset, images: np.ndarray, labels: np.ndarray
) -> Source:
    """Other images with labels, normalised as those of `dataset`."""
    dtype = jnp.dtype(config.train.compute_dtype)
    return in_memory.Images(images, labels, mean=dataset.mean, std=dataset.std, dtype=dtype)


def load_dataset(config: ConfigDict, *, to_train: bool = True) -> AnyDataset:
    """The data set, with the note that `config` may give it; perhaps only what is evaluated.

    Raises:
      UserError: data is missing or damaged.
    """
    options = config.data
    dataset = data.load_dataset(
        options.name,
        data_dir=options.dir,
        validation_examples=options.validation_examples,
        manual_dir=options.manual_dir,
        image_size=options.image_size,
        resize=options.resize,
        skip_corrupt=options.skip_corrupt,
        on_corrupt=console.warn,
        to_train=to_train,
        mean=options.mean,
        std=options.std,
        num_bytes=options.num_bytes,
        sequence_length=options.sequence_length,
        context=options.context,
    )
    if dataset.num_classes < 2:  # every network would be right
        folders = "; the folders in DIR/train are the classes"
        raise UserError(
            f"data.name = {options.name!r}: must have two or more classes, found "
            f"{dataset.num_classes}{folders if options.name == 'image_folder' else ''}"
        )
    if isinstance(dataset, OnDisk):
        for field in ("crop_padding", "cutout", "random_erasing"):
            if config.train[field]:
                raise UserError(
                    f"train.{field} = {config.train[field]}: must be 0 for {options.name}, which "
                    "is streamed, with random crops of data.image_size"
                )
    return dataclasses.replace(dataset, note=options.note or dataset.note)


def load_data(config: ConfigDict, *, to_train: bool) -> tuple[AnyDataset, dict[str, np.ndarray]]:
    """The data set, and images of the out-of-distribution sets that are there.

    Raises:
      UserError: data is missing or damaged; an OOD set is missing and `data.require_ood` is set;
        test, validation or OOD images are the training images.
    """
    options = config.data
    found, missing = ood.find_ood_sets(
        options.name,
        data_dir=options.dir,
        ood_dir=options.ood_dir,
        download=True,
        tell=console.warn,
    )
    if missing and options.require_ood:
        raise UserError(
            "data.require_ood = True: "
            + "; ".join(f"OOD set {name} is missing, {remedy}" for name, remedy in missing.items())
        )
    dataset = load_dataset(config, to_train=to_train)
    for name, remedy in missing.items():
        console.warn(f"OOD set {name} is missing and will not be reported; {remedy}")
    if dataset.unofficial:
        console.warn(f"{options.name}: {dataset.unofficial}; results carry this note")
    # Read now, so that a damaged archive is known before training.
    ood_sets = {name: load() for name, load in found.items()}
    if isinstance(dataset, Dataset):
        _warn_of_overlap(dataset, ood_sets)
    return dataset, ood_sets


def _warn_of_overlap(dataset: Dataset, ood_sets: dict[str, np.ndarray]) -> None:
    for split, number in overlap.in_training(dataset).items():
        total = len(getattr(dataset, f"{split}_labels"))
        if number > overlap.TOLERATED * total:
            console.warn(
                f"{dataset.name}: {number:,} of {total:,} {split} images are training images, too; "
                "results carry this note"
            )
    for line in overlap.check_outside(dataset, ood_sets):
        console.warn(line)
    if not registry.data(dataset.name).is_known and (line := overlap.labels_look_random(dataset)):
        console.warn(line)


def member_mode(config: ConfigDict, fits: Callable[[], bool]) -> str:
    """`late_phase.member_mode`, with 'auto' resolved for the default backend.

    On accelerators members are merged if `fits()` says that the memory suffices.
    """
    mode = config.late_phase.member_mode
    if mode != "auto":
        return mode
    return "scan" if jax.default_backend() == "cpu" or not fits() else "vmap"


def num_groups(config: ConfigDict, num_devices: int) -> int:
    """Groups of devices that share the members after the release, as `parallel.layout` asks.

    1 is the layout 'data', `num_devices` is 'members'. The more groups, the fewer bytes are
    all-reduced: batch norm's and members' gradients only within each group.

    Raises:
      UserError: the devices do not divide the members as is asked for.
    """
    asked, num_members = config.parallel.layout, config.late_phase.num_members
    most, field = math.gcd(num_members, num_devices), "late_phase.num_members"
    if asked == "members" and most < num_devices:
        raise UserError(
            f"parallel.layout = 'members': {field} must be divisible by the number of devices, but "
            f"{num_members} is not by {num_devices}; 'auto' uses 'data' then, or, with "
            "parallel.backend = 'shard_map', 'groups' if it can"
        )
    if asked == "groups" and most == 1 < num_devices:
        raise UserError(
            f"parallel.layout = 'groups': {field} and the number of devices must have a common "
            f"divisor, but {num_members} and {num_devices} have none; 'auto' uses 'data' then"
        )
    if asked == "data" or not config.late_phase.inner_training:
        return 1
    if asked == "auto" and config.parallel.backend == "pmap" and most < num_devices:
        return 1  # it has no groups of several devices
    return most
