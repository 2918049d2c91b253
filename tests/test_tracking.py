"""What is seen of a training on its way changes nothing of it, and is seen once only."""

import itertools
import json
import shutil
import subprocess
import sys

import event_files
import jax
import numpy as np
import pytest
import tiny_net
from comparison_files import results
from short_run import DIGITS, SHORT, subset
from tiny_net import TinyNet, labels

from lpw_jax import dry_run
from lpw_jax.config import load_config
from lpw_jax.data import in_memory
from lpw_jax.devices.parallel import Devices
from lpw_jax.devices.preemption import Preemption
from lpw_jax.display import events
from lpw_jax.errors import Preempted
from lpw_jax.files import described
from lpw_jax.files.results import Results
from lpw_jax.files.workdir import Workdir
from lpw_jax.method.spread import member_distance
from lpw_jax.models import functions
from lpw_jax.training import train
from lpw_jax.training.journal import Journal
from lpw_jax.training.runner import Runner

pytestmark = pytest.mark.usefixtures("tiny_network")
CONFIG = [*SHORT, "--config.train.crop_padding=2", "--config.train.batch_size=16"]
TIMES = ("seconds", "images_per_second")


class EndsAfter(Preemption):
    """Asks a run to end at its n-th question whether it should."""

    def __init__(self, questions):
        super().__init__()
        self.left = questions

    def due(self):
        self.left -= 1
        return self.left == 0


def training(*overrides):
    config = load_config(DIGITS, [*CONFIG, *overrides])
    return train.Training(config, subset(70), Devices.over(jax.devices()[:1]))


def epochs(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def without_times(records):
    return [{k: v for k, v in record.items() if k not in TIMES} for record in records]


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """A training that evaluates after every epoch, its folder, and what it returned."""
    folder = tmp_path_factory.mktemp("evaluated")
    ours = training("--config.evaluate.every_epochs=1")
    return ours, folder, *ours.run(Workdir(folder))


@pytest.mark.slow
def test_evaluating_every_epoch_ends_with_the_same_weights_bit_for_bit(evaluated, tmp_path):
    *_, weights, _ = evaluated
    undisturbed, _ = training().run(Workdir(tmp_path))
    jax.tree.map(np.testing.assert_array_equal, weights, undisturbed)
    assert not [record for record in epochs(tmp_path) if "evaluation" in record]


@pytest.mark.slow
def test_a_run_that_is_ended_again_and_again_finds_the_same_bit_for_bit(evaluated, tmp_path):
    ours, folder, weights, report = evaluated
    for questions in range(1, 100):  # within cycles, statistics and evaluations
        try:
            resumed, again = ours.run(Workdir(tmp_path), EndsAfter(questions))
            break
        except Preempted:
            continue
    assert questions > 10
    jax.tree.map(np.testing.assert_array_equal, weights, resumed)
    assert without_times(epochs(tmp_path)) == without_times(epochs(folder))
    assert again["best_epoch"] == report["best_epoch"]
    points, expected = (event_files.points(run) for run in (tmp_path, folder))
    assert points.keys() == expected.keys()
    for tag, step in points.keys() - {("speed/images_per_second", step) for step in (1, 2, 3)}:
        assert points[tag, step] == expected[tag, step]


@pytest.mark.slow
def test_the_best_epoch_is_that_of_the_highest_collapsed_accuracy(evaluated):
    _, folder, _, report = evaluated
    evaluations = [record["evaluation"] for record in epochs(folder)]
    accuracies = [found["collapsed"]["accuracy"] for found in evaluations]
    best = report["best_epoch"]
    assert accuracies[best["epoch"] - 1] == max(accuracies)
    assert best["views"] == evaluations[best["epoch"] - 1]
    assert len(evaluations[-1]["members"]) == 2 and 0 < evaluations[-1]["ensemble"]["nll"] < 10


@pytest.mark.slow
def test_averages_are_evaluated_as_if_training_ended_there(evaluated):
    ours, folder, weights, _ = evaluated
    records = epochs(folder)
    assert [record["phase"] for record in records] == ["tied", "SWA", "SWA"]
    assert ["evaluation_swa" in record for record in records] == [False, True, True]
    assert records[-1]["evaluation_swa"] == ours.evaluator.views(weights)
    assert records[-1]["evaluation_swa"] != records[-1]["evaluation"]


@pytest.mark.slow
def test_distance_and_disagreement_are_those_of_several_members(evaluated):
    tied, *late = epochs(evaluated[1])
    assert "member_distance" not in tied and tied["evaluation"]["ensemble"]["disagreement"] is None
    for record in late:
        assert 0 < record["member_distance"] < 1
        for evaluation in ("evaluation", "evaluation_swa"):
            assert 0 <= record[evaluation]["ensemble"]["disagreement"] <= 1


def test_members_distance_is_the_mean_deviation_over_the_mean_on_any_devices(float64):
    released = tiny_net.released(tiny_net.method(), 4, sigma=0.5)
    leaves = [np.reshape(leaf, (4, -1)) for leaf in jax.tree.leaves(released.members)]
    members = np.concatenate(leaves, axis=1)
    mean = sum(members) / 4
    lengths = [np.linalg.norm(member - mean) for member in members]
    expected = sum(lengths) / 4 / np.linalg.norm(mean)
    assert expected > 0.1
    for num_devices, num_groups in ((2, 1), (2, 2), (4, 2), (4, 4)):
        runner = Runner(
            devices=Devices.over(jax.devices()[:num_devices], backend="shard_map").in_groups(
                num_groups
            ),
            method=tiny_net.method,
            statistics=lambda axis: functions.statistics(TinyNet(axis_name=axis)),
            key=jax.random.key(0),
            num_microbatches=1,
            member_mode="vmap",
            source=in_memory.TrainingSet(
                np.zeros((8, 8, 8, 3), np.uint8),
                labels(0, 8),
                key=jax.random.key(0),
                crop_padding=0,
                flip=False,
                cutout=0,
                mean=(0.5,) * 3,
                std=(0.2,) * 3,
                dtype=np.dtype(np.float64),
            ),
            batch_size=8,
        )
        placed = runner.place(released, num_members=4)
        found = runner.member_distance(placed, num_members=4)
        np.testing.assert_allclose(found, expected, rtol=1e-12)
    equal = jax.tree.map(lambda leaf: leaf[[0, 0, 0]], released.members)
    np.testing.assert_allclose(member_distance(equal), 0, atol=1e-15)


def test_a_rehearsal_goes_on_at_the_start_of_a_data_set_that_ends():
    ours = training()
    an_epoch = ours.timeline.cycles(2)
    cycles = itertools.islice(dry_run._cycles(ours, 2, 2), an_epoch + 1)
    losses = [np.asarray(metrics["loss"]) for metrics in cycles]
    assert len(losses) == an_epoch + 1 and np.isfinite(losses).all()


DIVERGES = (
    "--config.train.learning_rate=1e30",
    "--config.train.on_nonfinite=warn",
    "--config.late_phase.release_epoch=-1",
    "--config.swa.start_epoch=0",
    "--config.evaluate.every_epochs=1",
)


def test_a_diverged_network_that_is_tolerated_has_no_evaluation(tmp_path, capsys):
    _, report = training(*DIVERGES).run(Workdir(tmp_path))
    assert [record["evaluation"] for record in epochs(tmp_path)] == [None] * 3
    assert report["best_epoch"] is None and report["train"]["epochs"] == 3
    printed = capsys.readouterr()
    assert "the test set was not evaluated: " in printed.out + printed.err
    tags = {tag for tag, _ in event_files.points(tmp_path)}
    assert "speed/images_per_second" in tags and not [t for t in tags if t.startswith("test")]


@pytest.mark.slow
def test_events_are_the_lines_of_metrics_and_the_results(evaluated):
    _, folder, _, report = evaluated
    records = epochs(folder)
    points = event_files.points(folder)
    for record in records:
        epoch, evaluation = record["epoch"], record["evaluation"]
        members = evaluation["members"]
        for tag, value in {
            "train/loss": record["loss"],
            "train/accuracy": record["accuracy"],
            "learning_rate/shared": record["learning_rate"],
            "learning_rate/late_phase": record["late_phase_learning_rate"],
            "speed/images_per_second": record["images_per_second"],
            "test/collapsed/accuracy": evaluation["collapsed"]["accuracy"],
            "test/ensemble/nll": evaluation["ensemble"]["nll"],
            "test/members_mean/ece": sum(member["ece"] for member in members) / len(members),
        }.items():
            np.testing.assert_allclose(points[tag, epoch], value, rtol=1e-6)
    late = records[1:]
    for tag, values in {
        "members/distance": [record["member_distance"] for record in late],
        "test/ensemble/disagreement": [
            record["evaluation"]["ensemble"]["disagreement"] for record in late
        ],
        "test_swa/collapsed/brier": [r["evaluation_swa"]["collapsed"]["brier"] for r in late],
        "train/member_loss_spread": [np.ptp(record["member_loss"]) for record in late],
    }.items():
        found = {step: value for (name, step), value in points.items() if name == tag}
        np.testing.assert_allclose([found[2], found[3]], values, rtol=1e-5)
        assert 1 not in found

    found = results("digits_bn") | report
    ood = {"SVHN": {"auroc": 0.75, "fpr95": None}, "TIN": None}
    for accuracy in (0.25, 0.5):  # the later evaluation takes the place of the other
        found["views"]["collapsed"] |= {"accuracy": accuracy, "ood": ood}
        events.write_results(Workdir(folder), described.read(Results, found))
    after = event_files.points(folder)
    new = {tag: value for (tag, step), value in after.items() if (tag, step) not in points}
    assert after == points | {(tag, 3): value for tag, value in new.items()}
    assert (new["final/collapsed/accuracy"], new["final/collapsed/ood/SVHN/auroc"]) == (0.5, 0.75)
    assert not [tag for tag in new if "fpr95" in tag or "TIN" in tag]


READ = """
import sys
import tensorflow as tf
print(sum(1 for _ in tf.data.TFRecordDataset(sys.argv[1:])))  # checks every checksum
"""


@pytest.mark.slow
def test_another_reader_finds_the_events_whole(evaluated):
    (file,) = (evaluated[1] / "tensorboard").glob("*tfevents*.epochs")
    read = subprocess.run(
        [sys.executable, "-c", READ, file], capture_output=True, text=True, check=True
    )
    assert int(read.stdout) == len(event_files.events(file)) == 2 + 3


@pytest.mark.slow
def test_a_run_goes_on_without_the_events_that_cannot_be_written(evaluated, tmp_path, capsys):
    records = epochs(evaluated[1])
    (tmp_path / "tensorboard").symlink_to(tmp_path / "gone")
    journal = Journal(Workdir(tmp_path), records[:1])
    journal.add(records[1])
    assert "TensorBoard's events were not written" in capsys.readouterr().err
    assert epochs(tmp_path) == records[:2]


@pytest.mark.slow
def test_a_file_in_the_place_of_the_events_folder_is_set_aside(evaluated, tmp_path):
    (tmp_path / "tensorboard").write_text("mine")
    events.Events(Workdir(tmp_path), epochs(evaluated[1])[:2])
    assert (tmp_path / "damaged-tensorboard").read_text() == "mine"
    assert event_files.points(tmp_path)


@pytest.mark.slow
def test_events_that_a_user_has_removed_are_written_again(evaluated, tmp_path):
    records = epochs(evaluated[1])
    written = events.Events(Workdir(tmp_path), records[:2])
    before = event_files.points(tmp_path)
    shutil.rmtree(tmp_path / "tensorboard")
    written.add(records[2])
    after = event_files.points(tmp_path)
    assert before.items() < after.items() and ("train/loss", 3) in after


@pytest.mark.slow
def test_without_tensorboardx_a_run_has_no_events_and_says_so(
    evaluated, tmp_path, monkeypatch, capsys
):
    monkeypatch.setitem(sys.modules, "tensorboardX.proto.event_pb2", None)
    records = epochs(evaluated[1])
    Journal(Workdir(tmp_path), records[:2]).add(records[2])
    assert (
        "events were not written: ModuleNotFoundError: import of tensorboardX"
        in capsys.readouterr().err
    )
    assert epochs(tmp_path) == records
