"""What configs load as: the published numbers, overrides, round trips."""

import argparse
import json
import re
import sys
from pathlib import Path

import pytest

from lpw_jax import config as config_lib
from lpw_jax import config_schema
from lpw_jax.errors import ConfigError

CONFIGS = Path(config_lib.__file__).resolve().parent.parent / "configs"
SMALL = str(CONFIGS / "cifar10_small.py")
OVERLAYS = sorted(p for p in CONFIGS.glob("*.py") if p.stem not in ("__init__", "base"))


def flags(**fields):
    return [f"--config.{name.replace('__', '.')}={value}" for name, value in fields.items()]


# The published table: name -> data, width, epochs, release, start and end of annealing, end rate,
# members' weight decay, SWA start, cutout.
PUBLISHED = {
    "cifar10_bn": ("cifar10", 10, 200, 120, 100, 180, 0.001, 5e-4, 0, 0),
    "cifar10_bn_swa": ("cifar10", 10, 200, 100, 80, 144, 0.05, 5e-4, 161, 0),
    "cifar10_wrn14_bn_swa": ("cifar10", 14, 300, 120, 80, 240, 0.05, 5e-4, 241, 16),
    "cifar100_bn": ("cifar100", 10, 200, 120, 100, 180, 0.001, 5e-3, 0, 0),
    "cifar100_bn_swa": ("cifar100", 10, 200, 100, 80, 144, 0.05, 5e-4, 161, 0),
    "cifar100_wrn14_bn_swa": ("cifar100", 14, 300, 120, 80, 240, 0.05, 5e-4, 241, 16),
}


@pytest.mark.parametrize(
    "path",
    [path for path in OVERLAYS if not re.search("small|digits_bn|effect", path.stem)],
    ids=lambda path: path.stem,
)
def test_the_fast_variant_of_a_published_config_differs_in_type_and_evaluation_only(path):
    plain, fast = (
        config_schema.flatten(config_lib.load_config(f"{path}{variant}").to_dict())
        for variant in ("", ":fast")
    )
    changed = {field: value for field, value in fast.items() if value != plain[field]}
    assert changed == {"train.compute_dtype": "bfloat16", "evaluate.batch_size": 2048}
    with pytest.raises(ConfigError, match="variant 'slow': must be "):
        config_lib.load_config(f"{path}:slow")


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_config_has_the_published_numbers(name):
    c = config_lib.load_config(str(CONFIGS / f"{name}.py"))
    numbers = (
        c.data.name,
        c.model.width,
        c.train.epochs,
        c.late_phase.release_epoch,
        c.train.anneal_start,
        c.train.anneal_end,
        c.train.end_learning_rate,
        c.late_phase.weight_decay,
        c.swa.start_epoch,
        c.train.cutout,
    )
    assert numbers == PUBLISHED[name]
    assert (c.model.name, c.model.depth, c.late_phase.num_members) == ("wide_resnet", 28, 10)
    assert (c.train.learning_rate, c.late_phase.learning_rate) == (0.1, 0.1)
    assert (c.train.weight_decay, c.train.momentum, c.train.nesterov) == (5e-4, 0.9, True)
    assert (c.train.batch_size, c.train.crop_padding, c.train.flip) == (128, 4, True)
    assert (c.late_phase.sigma, c.late_phase.coasting) == (0, "reference")
    assert (c.late_phase.shared_grad_scale, c.evaluate.batch_size) == (1, 512)
    assert (c.seed, c.data.validation_examples) == (0, 0)


@pytest.mark.parametrize(
    ("base", "name"),
    [
        ("cifar10_sgd", "cifar10_bn"),
        ("cifar10_swa", "cifar10_bn_swa"),
        ("cifar100_sgd", "cifar100_bn"),
        ("cifar100_swa", "cifar100_bn_swa"),
        ("cifar10_small_sgd", "cifar10_small"),
    ],
)
def test_base_method_is_its_late_phase_config_without_a_release(base, name):
    unreleased = config_lib.load_config(
        str(CONFIGS / f"{name}.py"), flags(late_phase__release_epoch=-1)
    )
    assert config_lib.load_config(str(CONFIGS / f"{base}.py")) == unreleased


def test_small_config_is_the_agreed_one():
    c = config_lib.load_config(SMALL)
    assert (c.model.depth, c.model.width, c.late_phase.num_members) == (16, 1, 4)
    assert (c.train.batch_size, c.train.epochs, c.late_phase.release_epoch) == (128, 12, 8)
    assert (c.train.anneal_start, c.train.anneal_end) == (4, 11)
    assert (c.train.learning_rate, c.train.end_learning_rate) == (0.1, 0.001)
    assert (c.train.weight_decay, c.late_phase.weight_decay) == (5e-4, 5e-4)
    assert c.late_phase.coasting == "reference"


@pytest.mark.parametrize("path", OVERLAYS, ids=lambda path: path.stem)
def test_every_overlay_loads_and_its_docstring_gives_its_command(path):
    config = config_lib.load_config(str(path))
    assert config.is_locked and config.train.is_locked
    assert f"python -m lpw_jax.main --config configs/{path.name}" in path.read_text()
    assert config_lib.from_dict(json.loads(json.dumps(config_lib.to_dict(config)))) == config


@pytest.mark.parametrize(
    "value",
    ["a,b", "a, b", "a,b,", "('a', 'b')", '["a","b"]', "'a','b'", "  [ 'a' , 'b' , ]  ", "(a),(b)"],
)
def test_patterns_are_read_as_literal_or_comma_separated(value):
    c = config_lib.load_config(SMALL, [f"--config.late_phase.patterns={value}"])
    assert c.late_phase.patterns == (("(a)", "(b)") if "(a)" in value else ("a", "b"))


@pytest.mark.parametrize(
    "value",
    [
        r"(.*/)?bn[^/]*/(scale|bias)",
        "[0-9]",
        r"\d+(?#x)",
        "group[0-9]_block[0-9]{1,2}/bn1/scale",
        "(a{1,},?|b)",
        "[],(a]",
        "[^],]x",
        r"[\],]",
        r"\(a\,b",
        "1",
    ],
)
def test_commas_divide_patterns_only_outside_of_brackets(value):
    for text, expected in (
        (value, (value,)),
        (f"{value}, head/kernel", (value, "head/kernel")),
        (f"head/kernel,{value}", ("head/kernel", value)),
        (json.dumps([value, "é"]), (value, "é")),
        (repr((value,)), (value,)),
        (repr(value), (value,)),
    ):
        assert config_schema.from_text(text, ("",)) == expected, text


@pytest.mark.parametrize("text", ["1,2", "[1, 2]", "(1,2)", " 1 , 2,", "[1,\n2]"])
def test_every_field_that_is_a_tuple_is_read_alike(text):
    fields = config_schema.flatten(config_schema.schema())
    tuples = {field: default for field, default in fields.items() if type(default) is tuple}
    assert {"data.mean", "train.milestones", "late_phase.patterns"} < tuples.keys()
    for field, default in tuples.items():
        kind = type(default[0]) if default else float
        quoted = re.sub(r"(\d)", r'"\1"', text) if kind is str else text
        assert config_schema.from_text(quoted, default) == (kind(1), kind(2)), field
    assert config_schema.from_text("()", ()) == config_schema.from_text("[]", (1,)) == ()
    assert config_schema.from_text("0.5", ()) == config_schema.from_text("(0.5)", ()) == (0.5,)
    with pytest.raises(ValueError):
        config_schema.from_text(f"0.5,{text}", (1,))


def test_overrides_are_read_by_the_type_of_the_field():
    c = config_lib.load_config(
        SMALL,
        ["--config.train.flip=FALSE", "--config.train.learning_rate", "1", "--config.data.dir=12"]
        + ["--config.train.end_learning_rate=1e-3", "--config.late_phase.release_epoch", "-1"]
        + [
            "--config.train.nesterov=1",
            "--config.seed=1",
            "--config.seed=2",
            "--config.data.note=",
        ],
    )
    assert c.train.flip is False and c.train.nesterov is True and c.data.dir == "12"
    assert type(c.train.learning_rate) is float and c.train.learning_rate == 1
    assert (c.train.end_learning_rate, c.late_phase.release_epoch, c.seed) == (1e-3, -1, 2)


def test_override_leaves_its_argument_as_it_is():
    config = config_lib.load_config(str(CONFIGS / "digits_bn.py"))
    changed = config_lib.override(config, ["--config.train.epochs=77"])
    assert changed.train.epochs == 77 != config.train.epochs


def test_where_pretrained_weights_lie_makes_no_other_training_but_whether_there_are_some_does():
    configs = [
        config_lib.load_config(
            str(CONFIGS / "imagenet_resnet50.py"), [f"--config.model.pretrained={file}"]
        )
        for file in ("a.safetensors", "b.safetensors", "")
    ]
    one, other, none = configs
    assert config_lib.digest(one) == config_lib.digest(other) != config_lib.digest(none)
    assert config_lib.differences(one.to_dict(), other.to_dict()) == []
    assert len(config_lib.differences(one.to_dict(), none.to_dict())) == 1


def test_override_repairs_a_file_and_reaches_fields_that_refer_to_it(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "from configs import base\nfrom ml_collections import config_dict\n\n\n"
        "def get_config():\n    c = base.get_config()\n    c.train.epochs = 'x'\n"
        "    c.seed = config_dict.required_placeholder(int)\n"
        "    c.late_phase.learning_rate = c.train.get_ref('learning_rate')\n    return c\n"
    )
    c = config_lib.load_config(
        str(file), flags(train__epochs=200, train__learning_rate=0.3, seed=1)
    )
    assert (c.train.epochs, c.late_phase.learning_rate, c.seed) == (200, 0.3, 1)


def test_frozen_config_can_be_overridden(tmp_path):
    file = tmp_path / "frozen.py"
    file.write_text(
        "from configs import base\nfrom ml_collections import FrozenConfigDict\n\n\n"
        "def get_config():\n    return FrozenConfigDict(base.get_config())\n"
    )
    c = config_lib.load_config(str(file), flags(train__epochs=150))
    assert c.train.epochs == 150 and c.is_locked


def test_argument_after_the_file_reaches_get_config(tmp_path):
    file = tmp_path / "sized.py"
    file.write_text(
        "from configs import cifar10_bn\n\n\ndef get_config(depth):\n"
        "    c = cifar10_bn.get_config()\n    c.model.depth = int(depth)\n    return c\n"
    )
    assert config_lib.load_config(f"{file}:16").model.depth == 16
    assert config_lib.config_name(f"{file}:16") == "sized_16"
    assert config_lib.config_name("configs/cifar10_bn.py:a b/c") == "cifar10_bn_a_b_c"
    assert config_lib.config_name("configs/cifar10_bn.py") == "cifar10_bn"


@pytest.mark.parametrize(
    "line",
    [
        "import dataclasses\n\n\n@dataclasses.dataclass\nclass Sizes:\n    depth: int = 16",
        "import pickle\n\n\ndef own(): ...\n\n\nassert pickle.loads(pickle.dumps(own)) is own",
        "import own_sizes\nassert own_sizes.depth.value == 16",
    ],
)
def test_a_config_file_may_do_what_any_file_of_python_may(line, tmp_path, monkeypatch):
    file = tmp_path / "mine.py"
    file.write_text(
        f"from __future__ import annotations\nfrom configs import cifar10_bn\n{line}\n\n\n"
        "def get_config():\n    return cifar10_bn.get_config()\n"
    )
    (tmp_path / "own_sizes").mkdir()
    (tmp_path / "own_sizes" / "__init__.py").write_text("from own_sizes import depth\n")
    (tmp_path / "own_sizes" / "depth.py").write_text("value = 16\n")
    (tmp_path / "random.py").write_text("raise RuntimeError('decoy')\n")
    path = list(sys.path)
    assert config_lib.load_config(str(file)).train.epochs == 200
    assert sys.path == path and "configs.base" in sys.modules
    monkeypatch.setenv("OWN_FOLDER", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("$OWN_FOLDER/mine.py", "~/mine.py"):
        assert config_lib.load_config(name).train.epochs == 200


def test_modules_beside_a_config_file_are_its_own(tmp_path):
    for seed in (1, 2):
        folder = tmp_path / str(seed)
        folder.mkdir()
        (folder / "own_seed.py").write_text(f"seed = {seed}\n")
        (folder / "mine.py").write_text(
            "from configs import base\nimport own_seed\n\n\n"
            "def get_config():\n"
            "    c = base.get_config()\n    c.seed = own_seed.seed\n    return c\n"
        )
        assert config_lib.load_config(str(folder / "mine.py")).seed == seed


def test_dict_round_trip_restores_tuples_types_and_lock():
    config = config_lib.load_config(SMALL, ["--config.late_phase.patterns=a,b"])
    tree = json.loads(json.dumps(config_lib.to_dict(config)))
    assert tree["late_phase"]["patterns"] == ["a", "b"]
    back = config_lib.from_dict(tree)
    assert back == config and back.late_phase.patterns == ("a", "b") and back.is_locked
    tree["train"]["epochs"], tree["train"]["weight_decay"] = 0, False
    with pytest.raises(ConfigError) as error:
        config_lib.from_dict(tree)
    assert "train.epochs = 0: must be >= 1" in str(error.value)
    assert "train.weight_decay = False: expected float" in str(error.value)


def test_parse_separates_the_programs_own_flags_from_overrides(capsys):
    parser = argparse.ArgumentParser(prog="tool")
    config_lib.add_config_flags(parser)
    parser.add_argument("--workdir")
    args, config = config_lib.parse(
        parser, ["--config.seed", "3", "--workdir", "w", "--config", SMALL, "--config.data.dir=d"]
    )
    assert (args.workdir, args.config, config.seed, config.data.dir) == ("w", SMALL, 3, "d")
    for argv in (["--config", SMALL, "--config.seed=x"], ["--conf", SMALL], [], ["--config=x.py"]):
        with pytest.raises(SystemExit) as end:
            config_lib.parse(parser, argv)
        assert end.value.code == 2 and "tool: error: " in capsys.readouterr().err
