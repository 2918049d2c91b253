"""Makers of bad input: each returns a function that makes a mistake in a folder.

That function takes the folder and returns the command line that meets the mistake; one that begins
with 'evaluate' is for `lpw_jax.evaluate`.
"""

import fcntl
import json
import re
import shutil

import numpy as np
import scipy.io
import tfds_fixtures
from array_record.python import array_record_module
from comparison_files import results
from image_files import files, write_archive
from short_run import CONFIGS, DIGITS, SHORT

from lpw_jax import config as config_lib
from lpw_jax.files.checkpoint import Checkpoints, save_weights

_HELD = []  # files that stay open
SMALL = str(CONFIGS / "cifar10_small.py")
WEIGHTS = ("shared", "late_phase", "batch_stats")
STORED = json.dumps(config_lib.to_dict(config_lib.load_config(DIGITS, SHORT)))
TRAINED = json.dumps(results("digits_bn", overrides=SHORT) | {"status": "trained", "views": None})


def digits(*overrides):
    """The digits config with overrides 'FIELD=VALUE'."""
    return lambda here: ["--config", DIGITS, *(f"--config.{text}" for text in overrides)]


def flags(*items):
    """Nothing but a command line."""
    return lambda here: list(items)


def config(text):
    """A config file of its own."""

    def case(here):
        (here / "mine.py").write_text(text)
        return ["--config", str(here / "mine.py")]

    return case


def body(line):
    """A config file that changes base's config by one line."""
    return config(
        f"from configs import base\ndef get_config():\n c = base.get_config()\n {line}\n return c\n"
    )


def data(damage, source="cifar10"):
    """cifar10_small with a data folder on which `damage(version's folder)` was done."""

    def case(here):
        target = here / "tfds" / "cifar10"
        shutil.copytree(tfds_fixtures.folder() / "array_record" / source, target)
        damage(target / "3.0.2")
        return ["--config", SMALL, f"--config.data.dir={here / 'tfds'}"]

    return case


def unharmed(folder):
    """No damage."""


def edited(name, old, new):
    """Damage: other text in a file."""

    def damage(folder):
        path = folder / name
        assert re.search(old, path.read_text())
        path.write_text(re.sub(old, new, path.read_text(), count=1))

    return damage


def shard(change):
    """Damage: other bytes in the training images' file."""

    def damage(folder):
        [path] = folder.glob("cifar10-train*")
        path.write_bytes(change(path.read_bytes()))

    return damage


def records(image):
    """Damage: test examples in which any bytes stand for the image."""

    def message(number, content):
        size = len(content)
        varint = bytes([size]) if size < 128 else bytes([size & 127 | 128, size >> 7])
        return bytes([number << 3 | 2]) + varint + content

    def feature(name, value):
        return message(1, message(1, name) + message(2, value))

    def damage(folder):
        text = message(1, message(1, b"x"))
        features = feature(b"id", text) + feature(b"image", message(1, message(1, image)))
        features += feature(b"label", message(3, message(1, b"\0")))
        [path] = folder.glob("cifar10-test*")
        writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1")
        for _ in range(tfds_fixtures.SIZES["test"]):
            writer.write(message(1, features))  # a tf.train.Example
        writer.close()

    return damage


def outside(name, content):
    """cifar10_small with one file, archive (list of members) or folder (dict) in its ood_dir."""

    def case(here):
        path = here / "ood" / name
        path.parent.mkdir()
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif isinstance(content, list):
            write_archive(path, [*files("x"), *content])
        else:
            path.mkdir()
            for file, inside in content.items():
                (path / file).write_bytes(inside)
        return [*data(lambda folder: None)(here), f"--config.data.ood_dir={here / 'ood'}"]

    return case


def mat(variables, keep=None):
    """As `outside`, with a .mat file of which the first `keep` bytes are there."""

    def case(here):
        scipy.io.savemat(here / "whole.mat", variables)
        return outside("test_32x32.mat", (here / "whole.mat").read_bytes()[:keep])(here)

    return case


def workdir(**contents):
    """A working directory with these files: text, or None for a folder; '_' stands for '.'."""

    def case(here):
        (here / "run").mkdir()
        for name, text in contents.items():
            path = here / "run" / name.replace("_", ".")
            path.mkdir() if text is None else path.write_text(text)
        return digits()(here)

    return case


def joined(*items):
    """The digits config with flags about other processes."""
    return lambda here: [*digits()(here), *items]


def unfinished(damage):
    """The short run's folder before its end, on which `damage(folder)` was done."""

    def case(here):
        arguments = workdir(config_json=STORED)(here)
        damage(here / "run")
        return [*arguments, *SHORT]

    return case


def in_use(folder):
    """Damage: another process has the folder."""
    file = open(folder / ".lock", "w")  # noqa: SIM115  (the lock is held as long as it is open)
    file.write("process 1 on elsewhere")
    file.flush()
    fcntl.flock(file, fcntl.LOCK_EX)
    _HELD.append(file)


def checkpointed(damage):
    """Damage: a checkpoint of something else, on which `damage(folder)` was done."""

    def case(folder):
        with Checkpoints(folder / "checkpoints") as checkpoints:
            checkpoints.save(7, {"state": {"x": np.zeros((2, 3))}}, {"identity": "another"})
            checkpoints.check(wait=True)
        damage(folder)

    return case


def trained(damage, *overrides):
    """`evaluate` on a run whose weights are there and then damaged."""

    def case(here):
        workdir(config_json=STORED, results_json=TRAINED)(here)
        weights = {name: {"x": np.zeros((2, 3))} for name in WEIGHTS}  # of some other network
        save_weights(here / "run" / "weights", weights)
        damage(here / "run")
        return ["evaluate", *overrides]

    return case


def cut(folder):
    """Damage: every file of weights or checkpoints ends in its middle."""
    for path in folder.rglob("*/**/*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def remove(pattern):
    """Damage: files or folders that are not there."""

    def damage(folder):
        for path in [path.resolve() for path in folder.glob(pattern)]:
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    return damage


def bytes_of(name):
    """Damage: a file in the place of a folder."""

    def damage(folder):
        path = (folder / name).resolve()
        shutil.rmtree(path)
        path.write_bytes(b"")

    return damage
