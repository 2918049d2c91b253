"""What configs are refused and how, from files and by flags."""

import math
import re
from pathlib import Path

import pytest

from lpw_jax import config as config_lib
from lpw_jax.errors import ConfigError

CONFIGS = Path(config_lib.__file__).resolve().parent.parent / "configs"
SMALL = str(CONFIGS / "cifar10_small.py")


def flags(**fields):
    return [f"--config.{name.replace('__', '.')}={value}" for name, value in fields.items()]


def write(folder, body, imports="from configs import base"):
    """Writes a config file whose get_config changes base's config by `body`."""
    file = folder / "mine.py"
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    file.write_text(
        f"{imports}\n\n\ndef get_config():\n    c = base.get_config()\n{lines}    return c\n"
    )
    return str(file)


# field, refused value, words of the rule (besides the field and the value)
IMPOSSIBLE = [
    ("seed", -1, "2**32 - 1"),
    ("seed", 2**32, "2**32 - 1"),
    ("model.name", "resnet", "wide_resnet"),
    ("model.name", "resnet51", "did you mean 'resnet50'?"),
    ("model.name", "my_package:", "'package.module:function'"),
    ("data.name", "my-module:load", "'package.module:function'"),
    ("data.std", (0.2, 0.0, 0.2), "> 0"),
    ("data.std", (0.2,), "data.mean"),
    ("model.depth", 4, "6n + 4"),
    ("model.depth", -2, "6n + 4"),
    ("model.depth", 18, "6n + 4"),
    ("model.width", 0, ">= 1"),
    ("data.name", "", "cifar100"),
    ("data.name", "my images", "cifar100"),
    ("data.validation_examples", -1, ">= 0"),
    ("train.epochs", 0, ">= 1"),
    ("train.batch_size", 0, ">= 1"),
    ("train.learning_rate", 0.0, "> 0"),
    ("train.learning_rate", -0.1, "> 0"),
    ("train.learning_rate", math.nan, "finite"),
    ("train.learning_rate", math.inf, "finite"),
    ("train.end_learning_rate", -1e-3, ">= 0"),
    ("train.anneal_start", -1, ">= 0"),
    ("train.anneal_end", 4, "train.anneal_start = 4"),
    ("train.weight_decay", -5e-4, ">= 0"),
    ("train.momentum", 1.0, "< 1"),
    ("train.momentum", -0.1, ">= 0"),
    ("train.crop_padding", -1, ">= 0"),
    ("train.crop_padding", 33, "32"),
    ("train.cutout", -1, "32"),
    ("train.cutout", 33, "32"),
    ("train.compute_dtype", "float16", "bfloat16"),
    ("train.matmul_precision", "tf32", "highest"),
    ("late_phase.num_members", 0, ">= 1"),
    ("late_phase.release_epoch", -2, "-1 (never)"),
    ("late_phase.release_epoch", 12, "train.epochs = 12"),
    ("late_phase.release_epoch", 13, "never trains a member"),
    ("late_phase.sigma", -0.1, ">= 0"),
    ("late_phase.sigma", math.nan, "finite"),
    ("late_phase.coasting", "paper", "reference, every_minibatch, none"),
    ("late_phase.learning_rate", -0.1, ">= 0"),
    ("late_phase.weight_decay", -math.inf, "finite"),
    ("late_phase.member_mode", "", "auto, vmap, scan, unroll"),
    ("late_phase.shared_grad_scale", 0.0, "> 0"),
    ("late_phase.patterns", (), "regular expressions"),
    ("late_phase.patterns", ("head/(kernel",), "regular expressions"),
    ("late_phase.patterns", ("head/kernel", ""), "regular expressions"),
    ("swa.start_epoch", -1, "0 (off)"),
    ("swa.start_epoch", 13, "train.epochs = 12"),
    ("swa.start_epoch", 8, "late_phase.release_epoch = 8"),
    ("evaluate.batch_size", 0, ">= 1"),
    ("evaluate.every_epochs", -1, ">= 0"),
    ("train.num_microbatches", 0, ">= 1"),
    ("train.num_microbatches", 3, "must divide train.batch_size"),
    ("data.image_size", 30, ">= 32"),
    ("data.image_size", 200, "multiple of 32"),
    ("data.resize", 223, ">= data.image_size"),
    ("data.resize", 5000, "4096"),
    ("model.pretrained", "resnet50.safetensors", "'' for wide_resnet"),
    ("model.depth", 50, "6n + 4"),
]


@pytest.mark.parametrize(("field", "value", "rule"), IMPOSSIBLE)
@pytest.mark.parametrize("source", ["flag", "file"])
def test_impossible_value_is_refused_with_field_value_and_rule(
    source, field, value, rule, tmp_path
):
    file, overrides = SMALL, [f"--config.{field}={value}"]
    if source == "file":
        value_text = f"float('{value}')" if isinstance(value, float) else repr(value)
        body = f"c = cifar10_small.get_config()\nc.{field} = {value_text}"
        file = write(tmp_path, body, "from configs import base, cifar10_small")
        overrides = []
    with pytest.raises(ConfigError) as error:
        config_lib.load_config(file, overrides)
    (line,) = str(error.value).splitlines()
    assert line.startswith(f"{field} = {value!r}: ") and rule in line.partition(": ")[2]


@pytest.mark.parametrize("field", ["train.crop_padding", "train.cutout"])
def test_imagenet_has_crops_of_its_own(field):
    with pytest.raises(ConfigError, match=f"{field} = 4: must be 0 for imagenet2012"):
        config_lib.load_config("configs/imagenet_resnet50.py", [f"--config.{field}=4"])


def test_a_variant_that_there_is_not_is_refused():
    with pytest.raises(ConfigError, match="variant 'tiny': must be 'sample'"):
        config_lib.load_config("configs/imagenet_resnet50.py:tiny")


def test_every_microbatch_must_be_shared_evenly():
    config = config_lib.load_config("configs/imagenet_resnet50.py")
    config_lib.check_devices(config, 128)
    with pytest.raises(
        ConfigError, match=r"train.batch_size = 256 \(train.num_microbatches = 2\): "
    ):
        config_lib.check_devices(config, 256)


def test_nesterov_needs_momentum():
    with pytest.raises(ConfigError, match=r"train.nesterov = True: needs train.momentum > 0"):
        config_lib.load_config(SMALL, flags(train__momentum=0))
    config_lib.load_config(SMALL, flags(train__momentum=0, train__nesterov="false"))


@pytest.mark.parametrize(
    ("field", "text", "expected"),
    [
        ("train.epochs", "12.0", "int"),
        ("train.epochs", "true", "int"),
        ("train.epochs", "", "int"),
        ("train.learning_rate", "fast", "float"),
        ("train.nesterov", "yes", "bool"),
        ("train.flip", "2", "bool"),
    ],
)
def test_flag_of_the_wrong_type_names_field_value_and_type(field, text, expected):
    with pytest.raises(
        ConfigError, match=f"^{re.escape(f'{field} = {text!r}')}: expected {expected}$"
    ):
        config_lib.load_config(SMALL, [f"--config.{field}={text}"])


@pytest.mark.parametrize(
    ("assignment", "expected"),
    [
        ("train.epochs = True", "int"),
        ("train.epochs = 12.0", "int"),
        ("train.epochs = '12'", "int"),
        ("train.epochs = None", "int"),
        ("train.learning_rate = '1e-3'", "float"),
        ("train.flip = 1", "bool"),
        ("data.dir = 3", "str"),
        ("late_phase.patterns = 'head/kernel'", "tuple of str"),
        ("late_phase.patterns = ('head/kernel', 1)", "tuple of str"),
        ("train = 5", "a section with"),
    ],
)
def test_file_with_a_wrong_type_names_field_value_and_type(assignment, expected, tmp_path):
    message = f"^{re.escape(assignment)}: expected {expected}"
    with pytest.raises(ConfigError, match=message):
        config_lib.load_config(write(tmp_path, f"c.{assignment}"))


@pytest.mark.parametrize(
    ("unknown", "nearest"),
    [
        ("train.batchsize", "train.batch_size"),
        ("batch_size", "train.batch_size"),
        ("late_phase.members", "late_phase.num_members"),
        ("swa_start_epoch", "swa.start_epoch"),
        ("seeds", "seed"),
    ],
)
def test_unknown_field_names_the_nearest_known_one(unknown, nearest, tmp_path):
    message = f"^{unknown}: unknown field; the nearest known one is {nearest}$"
    with pytest.raises(ConfigError, match=message):
        config_lib.load_config(SMALL, [f"--config.{unknown}=1"])
    with pytest.raises(ConfigError, match=message):
        config_lib.load_config(write(tmp_path, f"c.{unknown} = 1"))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["--config.train=5"], "train: a section"),
        (["--config.seed.x=5"], "seed.x: unknown field"),
        (["--config.train.epochs"], "train.epochs: the flag --config.train.epochs needs a value"),
        (["--config.train.epochs", "--config.seed=1"], "train.epochs: the flag"),
        (["--train.epochs=5"], "'--train.epochs=5': expected --config.FIELD=VALUE"),
    ],
)
def test_malformed_override_is_refused(overrides, message):
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}"):
        config_lib.load_config(SMALL, overrides)


def test_all_mistakes_are_reported_one_a_line_and_none_that_only_follows(tmp_path):
    file = write(tmp_path, "c.train.epoch = 3\nc.model.width = '2'")
    with pytest.raises(ConfigError) as error:
        config_lib.load_config(file, flags(train__epochs=0, seed="x", late_phase__num_members=0))
    fields = {line.split(" ")[0].rstrip(":") for line in str(error.value).splitlines()}
    # not late_phase.release_epoch, though 120 is beyond epoch 0
    assert fields == {
        "train.epoch",
        "model.width",
        "train.epochs",
        "seed",
        "late_phase.num_members",
    }


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("def get_config(:\n", 1, "SyntaxError"),
        ("\0", None, "SyntaxError"),
        ("\n1 / 0\n", 2, "ZeroDivisionError"),
        ("import nowhere_to_be_found\n", 1, "ModuleNotFoundError"),
        ("raise SystemExit(0)\n", 1, "SystemExit"),
        ("def get_config():\n    return undefined\n", 2, "NameError"),
        ("get_config = 3\n", None, "must define a function get_config()"),
        ("def get_config():\n    return dict(seed=0)\n", None, "must return a ConfigDict"),
        ("def get_config(size):\n    return size\n", None, "missing 1 required positional"),
    ],
)
def test_unusable_file_is_refused_with_file_line_and_reason(text, line, reason, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(text)
    with pytest.raises(ConfigError) as error:
        config_lib.load_config(str(file))
    place = str(file) if line is None else f"{file}, line {line}: "
    assert str(error.value).startswith(place) and reason in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_file_folder_and_field_are_refused(tmp_path):
    for path, words in ((tmp_path / "none.py", "no such"), (tmp_path, "cannot read.*Error")):
        with pytest.raises(ConfigError, match=f"^{re.escape(str(path))}: {words}"):
            config_lib.load_config(str(path))
    with pytest.raises(ConfigError, match="^train.epochs: missing"):
        config_lib.load_config(write(tmp_path, "del c.train.epochs"))
    for tree in ([], None, {"sede": 0}, {"train": 3}):
        with pytest.raises(ConfigError):
            config_lib.from_dict(tree)


def test_devices_must_divide_the_batch():
    config = config_lib.load_config(SMALL)
    config_lib.check_devices(config, 8)
    with pytest.raises(ConfigError, match=r"train.batch_size = 128: .*devices, 3$"):
        config_lib.check_devices(config, 3)


def test_out_of_distribution_sets_cannot_be_required_where_none_are_defined():
    digits = str(config_lib.config_schema.CONFIGS / "digits_bn.py")
    with pytest.raises(ConfigError, match="data.require_ood = True: .*data.name = 'digits'"):
        config_lib.load_config(digits, ["--config.data.require_ood=True"])
