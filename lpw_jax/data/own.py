"""Data from outside the package: what a function of one's own must give."""

from collections.abc import Mapping

import numpy as np

from lpw_jax import registry
from lpw_jax.data.dataset import Dataset, check_labels
from lpw_jax.errors import UserError

_FIELD = "data.name"
_REMEDY = "see lpw_jax.data.own"


def load(name: str, data_dir: str, image_size: int, manual_dir: str) -> Dataset:
    """The data that the function `name`, 'package.module:function', gives.

    It is called with those of these keyword arguments that are in its signature by name:
    `data_dir` (`data.dir`), `image_size` and `manual_dir`, all of `config.data`. It must give the
    same at every call, on every host: a `lpw_jax.data.Dataset`, or a mapping or object with

    - `train_images`, `test_images`: uint8 [N, H, W, C] or [N, H, W], C = 1 or 3, all of one size;
    - `train_labels`, `test_labels`: integers [N], 0 to num_classes - 1;
    - and perhaps `num_classes` (by default the largest training label + 1), `mean` and `std` (per
      channel on the scale 0 to 1, by default those of the training images), `class_names`, in the
      order of labels, and `note`, a remark for results.

    Raises:
      UserError: there is no such function, it fails, or what it gives is not this.
    """
    options = {"data_dir": data_dir, "image_size": image_size, "manual_dir": manual_dir}
    found = registry.call(name, _FIELD, options)
    if isinstance(found, Dataset):
        return checked(found, name)

    def get(field, default=None):
        value = found.get(field) if isinstance(found, Mapping) else getattr(found, field, None)
        return default if value is None else value

    arrays = {}
    for split in ("train", "test"):
        for what in ("images", "labels"):
            value = get(f"{split}_{what}")
            if value is None:
                raise _error(name, f"must give {split}_{what}, but gave {type(found).__name__}")
            arrays[f"{split}_{what}"] = value = np.asarray(value)
            if what == "labels" and not np.issubdtype(value.dtype, np.integer):
                raise _error(name, f"{split}_labels must be integers, not {value.dtype}")
        if arrays[f"{split}_images"].ndim == 3:
            arrays[f"{split}_images"] = arrays[f"{split}_images"][..., None]
        arrays[f"{split}_labels"] = arrays[f"{split}_labels"].astype(np.int32)
    largest = int(arrays["train_labels"].max(initial=-1)) + 1
    numbers = {key: tuple(map(float, get(key, ()))) for key in ("mean", "std")}
    return checked(
        Dataset.unsplit(
            name,
            train=(arrays["train_images"], arrays["train_labels"]),
            test=(arrays["test_images"], arrays["test_labels"]),
            num_classes=int(get("num_classes", largest)),
            class_names=tuple(map(str, get("class_names", ()))),
            note=str(get("note", "")),
            **numbers,
        ),
        name,
    )


def checked(dataset: Dataset, name: str) -> Dataset:
    """Refuses arrays that are not as `Dataset` says; `name` is what messages call them.

    Raises:
      UserError: naming the array, the rule and what was found.
    """
    shape = dataset.train_images.shape[1:]
    if len(dataset.mean) != len(dataset.std) or any(std <= 0 for std in dataset.std):
        raise _error(name, f"std must be > 0, one for each mean, not {dataset.std}")
    if len(names := dataset.class_names) not in (0, dataset.num_classes):
        raise _error(name, f"class_names must be {dataset.num_classes}, not {len(names)}")
    for split in ("train", "validation", "test"):
        images, labels = (getattr(dataset, f"{split}_{what}") for what in ("images", "labels"))
        found = f"{images.dtype} {list(images.shape)}"
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3):
            raise _error(
                name, f"{split}_images must be uint8 [N, H, W, C] with C = 1 or 3, not {found}"
            )
        if images.shape[1:] != shape:
            raise _error(name, f"{split}_images must be {list(shape)} each, not {found}")
        if labels.shape != (len(images),):
            raise _error(
                name,
                f"{split}_labels must be [{len(images)}], one an image, not {list(labels.shape)}",
            )
        if len(labels):
            where = f"{_FIELD} = {name!r}: {split}_labels"
            check_labels(labels, num_classes=dataset.num_classes, where=where, remedy=_REMEDY)
        elif split != "validation":
            raise _error(name, f"{split}_images must not be empty")
    return dataset


def _error(name: str, rule: str) -> UserError:
    return UserError(f"{_FIELD} = {name!r}: {rule}; {_REMEDY}")
