"""Bad input, tried on the real program: one clear error, exit code 2, and nothing damaged.

Each line of `CASES` is a mistake: what it is, what makes it (see `mistakes`), and a pattern of the
error, which names the field or the file, and the rule.
"""

import re
import tarfile

import numpy as np
import pytest
from image_files import GIF, IMAGES, bomb, png, special
from mistakes import (
    STORED,
    body,
    bytes_of,
    checkpointed,
    config,
    cut,
    data,
    digits,
    edited,
    flags,
    in_use,
    joined,
    mat,
    outside,
    records,
    remove,
    shard,
    trained,
    unfinished,
    unharmed,
    workdir,
)  # fmt: skip
from short_run import CONFIGS, DIGITS, SHORT

from lpw_jax import evaluate, main

# Most cases build the network, and which one it is does not matter.
pytestmark = pytest.mark.usefixtures("tiny_network")
PNG = png(IMAGES[0])
LINK = special("x/a.png", tarfile.SYMTYPE, linkname="/etc/passwd")
HARD = special("x/a.png", tarfile.LNKTYPE, linkname="x/test_2.png")
DEVICE = special("x/a.png", tarfile.CHRTYPE, devmajor=1, devminor=5)
LSUN, TIN = "LSUN_resize.tar.gz", "Imagenet_resize.tar.gz"
COMPLETE = '{"status": "complete", "data": 3, "train": 4}'
MAT = {"X": IMAGES.transpose(1, 2, 3, 0)}

# fmt: off
CASES = {
    # Config files.
    "config missing": (flags("--config", "none.py"), r"none\.py: no such config file"),
    "config a folder": (flags("--config", str(CONFIGS)), r"configs: cannot read this config file"),
    "config syntax": (config("def get_config(:\n"), r"mine\.py, line 1: SyntaxError"),
    "config raises": (config("\n1 / 0"), r"mine\.py, line 2: ZeroDivisionError"),
    "config exits": (config("raise SystemExit(0)"), r"mine\.py, line 1: SystemExit"),
    "config binary": (config("\0"), r"mine\.py: SyntaxError"),
    "config empty": (config(""), r"mine\.py: a config file must define a function get_config"),
    "config of a dict": (config("get_config = dict"), r"mine\.py: .* must return a ConfigDict"),
    "field unknown": (body("c.seeds = 1"), r"seeds: unknown field; the nearest known one is seed"),
    "field missing": (body("del c.train.epochs"), r"train\.epochs: missing"),
    "field of a wrong type": (body("c.train.epochs = '9'"), r"train\.epochs = '9': expected int"),
    "section replaced": (body("c.train = 5"), r"train = 5: expected a section"),
    # Values.
    "rate not finite": (digits("train.learning_rate=nan"), r"learning_rate = nan: .*finite"),
    "rate negative": (digits("train.learning_rate=-1"), r"train\.learning_rate = -1\.0: .*> 0"),
    "no epochs": (digits("train.epochs=0"), r"train\.epochs = 0: .*>= 1"),
    "depth": (digits("model.depth=18"), r"model\.depth = 18: .*6n \+ 4"),
    "no members": (digits("late_phase.num_members=0"), r"num_members = 0: .*>= 1"),
    "release too late":
        (digits("late_phase.release_epoch=12"), r"release_epoch = 12: .*epochs = 12"),
    "averaging too late": (digits("swa.start_epoch=13"), r"swa\.start_epoch = 13: .*epochs = 12"),
    "annealing backwards": (digits("train.anneal_end=4"), r"anneal_end = 4: .*anneal_start = 4"),
    "no such dtype":
        (digits("train.compute_dtype=float16"), r"compute_dtype = 'float16': .*bfloat"),
    "no such data": (digits("data.name=cifar"), r"data\.name = 'cifar': .*did you mean 'cifar10"),
    "no such expression": (digits("late_phase.patterns=bn("), r"patterns = .*regular expression"),
    "nothing late": (digits("late_phase.patterns=norm/x"), r"'norm/x' matches none"),
    "too wide": (digits("model.width=1" + "0" * 30), r"model\.width = 10+: "),
    "no checkpoint kept": (digits("checkpoint.keep=0"), r"checkpoint\.keep = 0: .*>= 1"),
    "OOD of digits": (digits("data.require_ood=1"), r"data\.require_ood = True: .*'digits'"),
    "two mistakes": (digits("seed=-1", "swa.start_epoch=-1"), r"(?s)seed = -1.*swa\.start_epoch"),
    # Flags.
    "no config": (flags(), r"the following arguments are required: --config"),
    "flag unknown": (flags("--config", DIGITS, "--works", "x"), r"unrecognized arguments: --works"),
    "flag's field unknown":
        (digits("train.epoch=3"), r"train\.epoch: unknown field.*train\.epochs"),
    "flag without value":
        (digits("train.epochs"), r"the flag --config\.train\.epochs needs a value"),
    "flag not a number": (digits("train.epochs=many"), r"train\.epochs = 'many': expected int"),
    "flag not a truth": (digits("train.flip=perhaps"), r"train\.flip = 'perhaps': expected bool"),
    "flag of a section": (digits("train=5"), r"train: a section"),
    # Devices and sizes.
    "devices counted": (digits("parallel.num_devices=3"), r"num_devices = 3: .*found 8"),
    "devices of a kind": (digits("parallel.platform=tpu"), r"platform = 'tpu': .*found 8 x cpu"),
    "no such backend": (digits("parallel.backend=jit"), r"backend = 'jit': .*pmap, shard_map"),
    "devices for members": (digits("parallel.layout=members"), r"'members': .*4 is not by 8"),
    "hosts half told": (joined("--coordinator", "localhost:1"), r"--process_id: missing"),
    "hosts miscounted":
        (joined("--coordinator", "localhost:1", "--num_processes", "2", "--process_id", "2"),
         r"--process_id = 2: must be 0 to 1"),
    "devices do not divide": (digits("train.batch_size=60"), r"batch_size = 60: .*devices, 8"),
    "devices not there": (digits("parallel.num_devices=3"), r"num_devices = 3: .*found 8"),
    "platform not there": (digits("parallel.platform=tpu"), r"platform = 'tpu': .*found 8 x cpu"),
    "members do not divide": (digits("parallel.layout=members"), r"'members': .*num_members"),
    "cycle too large":
        (digits("train.batch_size=720"), r"batch_size = 720: .*1437 training images"),
    "all held out": (digits("data.validation_examples=1437"), r"examples = 1437: .*the 1437 tr"),
    # Data folders.
    "data a file": (data(bytes_of("../..")), r"tfds: must be a folder of tensorflow-datasets"),
    "data set a file": (data(bytes_of("..")), r"tfds/cifar10: must be the folder of a dataset"),
    "data absent": (data(remove("../../*")), r"data\.dir: cifar10 is not in .*not be downloaded"),
    "data empty": (data(remove("*")), r"3\.0\.2 holds no readable dataset_info\.json"),
    "info garbled":
        (data(edited("dataset_info.json", "{", "")), r"dataset_info\.json is not a read"),
    "format unknown":
        (data(edited("dataset_info.json", '"array_record"', '"pickle"')),
         r"dataset_info\.json .*fileFormat must be array_record or tfrecord, not 'pickle'"),
    "count wrong":
        (data(edited("dataset_info.json", "1203", "1202")), r"3\.0\.2 \(split 'train'\)"),
    "split missing":
        (data(edited("dataset_info.json", '"test"', '"tset"')),
         r"\(split 'test'\) holds no images"),
    "features missing":
        (data(remove("features.json")), r"features\.json cannot be read: .*No such"),
    "features garbled": (data(edited("features.json", "{", "")), r"features\.json cannot be read"),
    "features foreign":
        (data(edited("features.json", "tensorflow_datasets.core", "os")), r"must name tfds' own"),
    "features others":
        (data(edited("features.json", '"label"', '"y"')), r"must have the features im"),
    "shard missing": (data(remove("cifar10-train*")), r"'train'\) lacks its file cifar10-train"),
    "shard empty": (data(shard(lambda b: b"")), r"'train'\) cannot be read: .*copy the dataset"),
    "shard cut":
        (data(shard(lambda b: b[:70_000])), r"'train'\) cannot be read: .*copy the dataset"),
    "shard a page": (data(shard(lambda b: b"<html>" * 20_000)), r"'train'\) cannot be read"),
    "labels of another":
        (data(unharmed, "cifar100"), r"'train'\): labels must lie in 0\.\.9, .*0\.\.99"),
    "image size":
        (data(records(png(np.zeros((8, 9, 3), np.uint8)))),
         r"example 0: images must be 32x32 .*9x8"),
    "image format": (data(records(GIF)), r"example 0 is not a readable image: "),
    "image cut": (data(records(PNG[:900])), r"example 0 is not a readable image"),
    # Out-of-distribution sets.
    "OOD folder missing":
        (digits("data.ood_dir=/no/folder"), r"data\.ood_dir = '/no/folder': must"),
    "OOD set required":
        (lambda here: [*data(unharmed)(here), "--config.data.require_ood=True"],
         r"data\.require_ood = True: OOD set LSUN is missing, put LSUN_resize\.tar\.gz"),
    "archive a page": (outside(LSUN, b"<html>"), r"LSUN_resize\.tar\.gz cannot be read"),
    "archive empty": (outside(TIN, b""), r"Imagenet_resize\.tar\.gz cannot be read: empty file"),
    "archive cut": (outside(LSUN, b"\x1f\x8b\x08\0" + bytes(99)), r"gz cannot be read: .*; fetch"),
    "archive a folder": (outside(LSUN, {}), r"LSUN_resize\.tar\.gz: must be a tar\.gz archive"),
    "folder a file": (outside("LSUN_resize", b""), r"LSUN_resize: must be a folder of images"),
    "folder of bad images": (outside("LSUN_resize", {"a.png": GIF}), r"a\.png is not a readable"),
    "member outside": (outside(LSUN, [("../a.png", PNG)]), r"member '../a.png': names must stay"),
    "member absolute": (outside(LSUN, [("/tmp/a.png", PNG)]), r"member '/tmp/a.png': names must"),
    "member a link": (outside(LSUN, [LINK]), r"'x/a.png': must be a plain file, not a link"),
    "member a hard link": (outside(LSUN, [HARD]), r"'x/a.png': must be a plain file, not a link"),
    "member a device": (outside(LSUN, [DEVICE]), r"'x/a.png': must be a plain file, not a link"),
    "member twice": (outside(LSUN, [("x/test_2.png", PNG)]), r"'x/test_2.png': must be there once"),
    "member endless": (outside(LSUN, [special("x/a.png", size=1 << 60)]), r"LSUN.*cannot be read"),
    "member cut": (outside(LSUN, [("x/a.png", PNG[:600])]), r"member 'x/a.png' is not a readable"),
    "member a bomb": (outside(LSUN, [("x/a.png", bomb(60_000))]), r"'x/a.png' is not a readable"),
    "member large": (outside(LSUN, [("x/a.png", bomb(40))]), r"32x32 pixels, found 40x40"),
    "mat garbled": (outside("test_32x32.mat", b"page" * 99), r"test_32x32\.mat cannot be read"),
    "mat cut": (mat(MAT, 5_000), r"test_32x32\.mat cannot be read: .*fetch it again"),
    "mat of objects": (mat({"X": np.array([[b"x"]], object)}), r"X must be uint8 .*found cell"),
    "mat of others":
        (mat({"X": np.zeros((2, 2))}), r"X must be uint8 \[32, 32, 3, N\], found double"),
    # Working directories.
    "workdir empty": (flags("--config", DIGITS, "--workdir", ""), r"--workdir = ''"),
    "workdir a file":
        (flags("--config", DIGITS, "--workdir", DIGITS), r"--workdir = .*writable folder"),
    "workdir in a file":
        (flags("--config", DIGITS, "--workdir", f"{DIGITS}/x"), r"writable folder"),
    "workdir unnameable":
        (flags("--config", DIGITS, "--workdir", "x" * 5_000), r"--workdir = 'xxx"),
    "workdir of a null": (flags("--config", DIGITS, "--workdir", "a\0b"), r"--workdir = 'a\\x00b'"),
    "workdir foreign": (workdir(thesis_tex="mine"), r"holds thesis\.tex and no config\.json"),
    "workdir of another":
        (workdir(config_json=STORED), r"another config; .*train\.epochs: 3 there"),
    "run's config garbled": (workdir(config_json="{"), r"config\.json: must be JSON"),
    "run's config a list": (workdir(config_json="[]"), r"config\.json: must be JSON .*found \[\]"),
    "run's config nested": (workdir(config_json="[" * 100_000), r"config\.json: must be JSON"),
    "run's config impossible":
        (workdir(config_json=STORED.replace('"epochs": 3', '"epochs": 0')), r"train\.epochs = 0: "),
    "run's config a folder": (workdir(config_json=None), r"config\.json"),
    "results garbled":
        (lambda here: [*workdir(config_json=STORED, results_json="{")(here), *SHORT],
         r"results\.json: must be JSON"),
    "results empty":
        (lambda here: [*workdir(config_json=STORED, results_json="{}")(here), *SHORT],
         r"results\.json: must be JSON as a run writes it; config: is missing"),
    "results without data":
        (lambda here: [*workdir(config_json=STORED, results_json='{"status": 1}')(here), *SHORT],
         r"results\.json: must be JSON as a run writes it"),
    "results of another form":
        (lambda here: [*workdir(config_json=STORED, results_json=COMPLETE)(here), *SHORT],
         r"results\.json: must be JSON as a run writes it"),
    "workdir of ftp": (flags("--config", DIGITS, "--workdir", "ftp://x"), r"local folder or gs://"),
    # Checkpoints.
    "workdir in use": (unfinished(in_use), r"is in use by process 1 on elsewhere"),
    "checkpoints a file":
        (unfinished(lambda run: (run / "checkpoints").write_text("")),
         r"checkpoints: cannot be used for checkpoints"),
    "checkpoints empty":
        (unfinished(lambda run: (run / "checkpoints" / "7").mkdir(parents=True)),
         r"checkpoints/7 is damaged: .*No checkpoint is intact; nothing was changed"),
    "checkpoints cut":
        (unfinished(checkpointed(cut)), r"checkpoints/7 is damaged: .*No checkpoint is intact"),
    "checkpoints of another run":
        (unfinished(checkpointed(unharmed)), r"must be of the same config and data"),
    # Evaluation of what is no whole run.
    "evaluate what": (flags("evaluate"), r"must hold a finished training"),
    "evaluate unfinished":
        (lambda here: [workdir(config_json=STORED)(here), "evaluate"][1:],
         r"must hold a finished tr"),
    "evaluate without weights": (trained(remove("weights")), r"no folder 'weights' in it"),
    "evaluate cut weights": (trained(cut), r"weights: damaged, cannot be read"),
    "evaluate a file as weights": (trained(bytes_of("weights")), r"weights"),
    "evaluate other weights": (trained(unharmed), r"weights"),
    "evaluate garbled": (trained(edited("results.json", "{", "")), r"results\.json: must be JSON"),
    "evaluate another form":
        (trained(edited("results.json", r'"seed": 0', '"seed": []')), r"seed = \[\]: expected int"),
    "evaluate otherwise":
        (trained(unharmed, "--config.model.depth=16"), r"model\.depth=16: only data\.dir"),
    "evaluate what flag":
        (trained(unharmed, "--works"), r"'--works': expected --config\.FIELD=VALUE"),
}
# fmt: on


def snapshot(folder):
    """Every name under `folder`, with the bytes of files."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


@pytest.mark.parametrize("case", CASES)
def test_a_mistake_ends_with_one_clear_error_and_damages_nothing(
    case, tmp_path, monkeypatch, capsys
):
    make, error = CASES[case]
    for scheme in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(scheme, "http://127.0.0.1:9")  # nothing is downloaded
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "no_data"))
    monkeypatch.chdir(tmp_path)
    program, arguments = main.main, make(tmp_path)
    if arguments[:1] == ["evaluate"]:
        program, arguments = evaluate.main, arguments[1:]
    if "--workdir" not in arguments:
        arguments += ["--workdir", str(tmp_path / "run")]
    before = snapshot(tmp_path)
    try:
        code = program(arguments)
    except SystemExit as exit:  # argparse's way
        code = exit.code
    printed = capsys.readouterr()
    assert code == 2, printed
    assert re.search(error, printed.err) and "error: " in printed.err, printed.err
    assert "Traceback" not in printed.err + printed.out
    assert snapshot(tmp_path) == before
