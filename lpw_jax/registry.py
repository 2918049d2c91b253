"""Networks and data sets by name: each is named here, and nowhere else. Imports nothing heavy.

A name is one of these tables, or 'package.module:function' for what is not the package's own.
"""

import contextlib
import difflib
import importlib
import inspect
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from lpw_jax.errors import UserError
from lpw_jax.files import storage
from lpw_jax.registered import Data, Network, Published

_RESNET = {"builder": "lpw_jax.models.resnet:ResNet", "weight_names": "resnet"}
NETWORKS = {
    "wide_resnet": Network(
        "lpw_jax.models.wide_resnet:WideResNet",
        settings=("depth", "width"),
        title="WRN-{depth}-{width}",
        is_reference=True,
    ),
    "resnet50": Network(
        **_RESNET,
        arguments={"stage_sizes": (3, 4, 6, 3)},
        published=Published("resnet50-0676ba61.pth", 76.130),
    ),
    "resnet152": Network(
        **_RESNET,
        arguments={"stage_sizes": (3, 8, 36, 3)},
        published=Published("resnet152-394f9c45.pth", 78.312),
    ),
    "densenet161": Network(
        "lpw_jax.models.densenet:DenseNet",
        published=Published("densenet161-8d451a50.pth", 77.138),
        weight_names="densenet",
    ),
    "lstm": Network(
        "lpw_jax.models.recurrent:LSTM",
        settings=("width", "embedding"),
        title="LSTM-{width}",
        reads_text=True,
    ),
}

_CIFAR = {"loader": "lpw_jax.data.cifar:load", "is_prepared": True}
_CIFAR_HOST = "https://www.cs.toronto.edu/~kriz/"
_TEXT = {"num_classes": 256, "side": None, "is_text": True}
DATA = {
    "cifar10": Data(
        **_CIFAR,
        num_classes=10,
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2023, 0.1994, 0.2010),
        url=_CIFAR_HOST + "cifar-10-binary.tar.gz",
        opening="The CIFAR-10 dataset consists of 60000 32x32 colour images",
        ood="cifar100",
        corrupted="CIFAR-10-C",
    ),
    "cifar100": Data(
        **_CIFAR,
        num_classes=100,
        mean=(0.5071, 0.4867, 0.4408),
        std=(0.2675, 0.2565, 0.2761),
        url=_CIFAR_HOST + "cifar-100-binary.tar.gz",
        opening="This dataset is just like the CIFAR-10, except it has 100 classes",
        ood="cifar10",
        corrupted="CIFAR-100-C",
    ),
    "digits": Data("lpw_jax.data.digits:load", num_classes=10),
    "imagenet2012": Data(
        "lpw_jax.data.imagenet:load",
        num_classes=1000,
        side=None,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        has_crops=True,
        is_prepared=True,
        archives=True,
    ),
    "image_folder": Data("lpw_jax.data.image_folder:load", side=None),
    "enwik8": Data("lpw_jax.data.text_files:enwik8", **_TEXT),
    "python_sources": Data("lpw_jax.data.text_files:python_sources", **_TEXT),
    "text": Data("lpw_jax.data.text_files:text", **_TEXT),
}
CIFAR = {name: known for name, known in DATA.items() if known.ood}
_TFDS = Data(
    "lpw_jax.data.tfds_images:load",
    side=None,
    url="https://storage.googleapis.com/tfds-data",
    is_prepared=True,
)
_OWN = Data("lpw_jax.data.own:load", side=None)

OPTIMIZERS = ("sgd", "adam", "adamw")

_IDENTIFIER = r"[^\W\d]\w*"
_PATH = rf"{_IDENTIFIER}(\.{_IDENTIFIER})*"
_TFDS_NAME = r"[a-z]\w*(/[\w.-]+)?"


def is_function(name: str) -> bool:
    """Whether `name` has the form 'package.module:function'."""
    return re.fullmatch(f"{_PATH}:{_PATH}", name) is not None


def network(name: str) -> Network:
    """What is known of a network; of 'package.module:function' only that."""
    return NETWORKS.get(name) or Network(name, settings=("depth", "width"))


def data(name: str) -> Data:
    """What is known of a data set; any other name is that of one of tensorflow-datasets."""
    return DATA.get(name) or (_OWN if is_function(name) else _TFDS)


def wrong_network(name: str) -> str:
    """The rule that a value of `model.name` breaks; '' if it breaks none."""
    known = name in NETWORKS or is_function(name)
    return "" if known else _choices(name, NETWORKS, "'package.module:function'")


def wrong_optimizer(name: str) -> str:
    """The rule that a value of `train.optimizer` breaks; '' if it breaks none."""
    known = name in OPTIMIZERS or is_function(name)
    return "" if known else _choices(name, OPTIMIZERS, "'package.module:function'")


def wrong_data(name: str, tfds_names: Iterable[str] | None = None) -> str:
    """The rule that a value of `data.name` breaks; '' if it breaks none.

    `tfds_names` are the data sets that tensorflow-datasets has or that are prepared; None if they
    are not known yet: then the form decides.
    """
    if name in DATA or is_function(name):
        return ""
    is_tfds = re.fullmatch(_TFDS_NAME, name) is not None
    if is_tfds and (tfds_names is None or name.partition("/")[0] in tfds_names):
        return ""
    others = "the name of a tensorflow-datasets set, or 'package.module:function'"
    return _choices(name, DATA, others, [*DATA, *(tfds_names or ())])


def _choices(name: str, table: Iterable[str], others: str, known: Iterable[str] = ()) -> str:
    return f"must be one of {', '.join(table)}, or {others}{_nearest(name, known or table)}"


def _nearest(name: str, known: Iterable[str]) -> str:
    """Asks whether the known name that is most like `name` was meant, if there is one like it."""
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" (did you mean {found[0]!r}?)" if found else ""


def resolve(name: str, field: str) -> Callable[..., Any]:
    """The function that 'package.module:function' names.

    Modules are looked for in the current directory first, as with `python -m`. Raises UserError,
    naming `field` and what is wrong: no such module, its import fails, or it has no such function.
    """
    module_name, _, path = name.partition(":")
    rule = f"{field} = {name!r}: must name a function as 'package.module:function'"
    here = storage.current_folder()
    sys.path += {here} - {*sys.path}  # for what is imported later
    sys.path.insert(0, here)
    try:
        found = importlib.import_module(module_name)
    except Exception as error:  # anything, of a module that is not ours
        raise UserError(
            f"{rule}, but importing {module_name} raised {_told(error)}; modules are looked for in "
            f"the current directory ({here}) and among installed packages"
        ) from error
    finally:
        sys.path.remove(here)
    for part in path.split("."):
        if not hasattr(found, part):
            raise UserError(f"{rule}, but {module_name} has no {path}{_nearest(part, dir(found))}")
        found = getattr(found, part)
    if not callable(found):
        raise UserError(f"{rule}, but that is {found!r}")
    return found


def accepted(function: Callable, offered: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the keyword arguments `offered` that a function has in its signature by name."""
    parameters = inspect.signature(function).parameters
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {
        name: value
        for name, value in offered.items()
        if name in parameters and parameters[name].kind in by_name
    }


def call(name: str, field: str, offered: Mapping[str, Any]) -> Any:
    """Calls 'package.module:function' with what it takes of `offered`.

    Raises:
      UserError: as `resolve`, or naming what the function raised and where.
    """
    function = resolve(name, field)
    with speaking_of(field, name):
        return function(**accepted(function, offered))


@contextlib.contextmanager
def speaking_of(field: str, name: str) -> Iterator[None]:
    """Turns what code that is not ours raises inside into a UserError of a config's field."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{field} = {name!r}: must not fail, but raised {_told(error)}") from error


def _told(error: Exception) -> str:
    """An error in one line, with the place that it comes from."""
    text = " ".join(str(error).split())[:300]
    steps = traceback.extract_tb(error.__traceback__)
    own = [s for s in steps if "site-packages" not in s.filename and s.filename[:1] != "<"]
    place = f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""
    return f"{type(error).__name__}: {text}{place}"
