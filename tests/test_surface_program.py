"""`lpw_jax.evaluate --surface`: surface.json of a run, its section of the report, bad input."""

import json
import shutil

import numpy as np
import pytest
from page_reader import Page
from short_run import COMMAND
from sklearn.metrics import accuracy_score, log_loss

import lpw_jax
from lpw_jax import evaluate, main
from lpw_jax.data import load_dataset
from lpw_jax.errors import UserError
from lpw_jax.files.workdir import Workdir
from lpw_jax.surfaces import of_run

IMAGES = 40  # rounded down to 32, two minibatches


@pytest.fixture(scope="module")
def small():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(of_run, "PROBES", 2)
        patch.setattr(of_run, "DRAWS", 2)
        patch.setattr(of_run, "SIDE", 3)
        patch.setattr(of_run, "BETWEEN", np.linspace(0, 1, 3))
        patch.setattr(of_run, "THROUGH", np.linspace(-0.5, 1.5, 5))
        yield


def surface(folder):
    assert evaluate.main(["--workdir", str(folder), "--surface", str(IMAGES)]) == 0
    return Workdir(folder).read_surface()


@pytest.fixture(scope="module")
def measured(finished_run, small, tmp_path_factory):
    """A run of two members with SWA; its folder and its surface."""
    folder = shutil.copytree(finished_run, tmp_path_factory.mktemp("runs") / "swa")
    return folder, surface(folder)


@pytest.mark.slow
def test_losses_are_those_of_the_run_on_training_images(measured):
    folder, found = measured
    assert (found.images, found.batch_size) == (32, 16) and found.num_weights == 730
    assert list(found.networks) == ["collapsed", "member 0", "member 1", "before averaging"]
    run = lpw_jax.load(folder)
    data = load_dataset("digits", data_dir="", validation_examples=1181)
    chosen = np.random.default_rng(0).permutation(len(data.train_labels))[:32]
    images, labels = run.normalize(data.train_images[chosen]), data.train_labels[chosen]
    variables = {"collapsed": run.collapsed, "member 1": run.member(1)}
    for name, one in variables.items():
        logits = np.asarray(run.model.apply(one, images), np.float64)
        probs = np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))
        network = found.networks[name]
        expected = log_loss(labels, probs, labels=range(10))
        assert network.loss == pytest.approx(expected, rel=1e-4)
        assert network.accuracy == accuracy_score(labels, logits.argmax(1))


@pytest.mark.slow
def test_lines_meet_the_networks_at_their_ends(measured):
    _, found = measured
    ends = [(line.start, line.end) for line in found.lines]
    through = [(n, "collapsed") for n in ("member 0", "member 1", "before averaging")]
    assert ends == [("member 0", "member 1"), *through]
    for line in found.lines:
        for name, at in ((line.start, 0), (line.end, 1)):
            there = line.at.index(at)
            assert line.loss[there] == pytest.approx(found.networks[name].loss, rel=1e-5)
            assert line.accuracy[there] == found.networks[name].accuracy
    assert found.lines[1].loss[0] != found.lines[1].loss[-1]
    middle = found.lines[0].loss[1]  # of two members, the middle is the collapsed network
    assert middle == pytest.approx(found.networks["collapsed"].loss, rel=1e-4)
    assert found.plane is None and found.notes == ["The plane needs three members."]


@pytest.mark.slow
def test_curvature_and_perturbations_are_there(measured):
    _, found = measured
    for one in found.networks.values():
        assert len(one.eigenvalues) == 3 and one.eigenvalues == sorted(one.eigenvalues)[::-1]
        assert max(one.residuals) < 0.1 * one.eigenvalues[0]
        assert [step.size for step in one.perturbed] == list(of_run.SIZES)
        closest = one.perturbed[0].loss
        assert len(closest) == 2 and closest == pytest.approx([one.loss] * 2, rel=0.1)


@pytest.mark.slow
def test_the_report_shows_it(measured):
    folder, found = measured
    page = Page((folder / "report.html").read_text())
    assert "32 training images" in page.sections["Loss surface"]
    assert "The plane needs three members." in page.sections["Loss surface"]
    drawn = [alt for alt in page.images if "lines" in alt or "perturbations" in alt]
    assert len(drawn) == 7
    shown = page.rows()["member 1"]
    assert float(shown[0]) == pytest.approx(found.networks["member 1"].loss, rel=1e-3)


@pytest.mark.slow
def test_a_damaged_surface_is_refused(measured, tmp_path):
    folder, _ = measured
    value = json.loads((folder / "surface.json").read_text())
    for change, message in (
        (lambda line: line["loss"].pop(), "at, loss, accuracy: must be equally long"),
        (lambda line: line["accuracy"].__setitem__(0, 2), "must be 0 to 1"),
    ):
        broken = json.loads(json.dumps(value))
        change(broken["lines"][0])
        (tmp_path / "surface.json").write_text(json.dumps(broken))
        with pytest.raises(UserError, match=message):
            Workdir(tmp_path).read_surface()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--surface", "0"], "--surface = 0: must be 1 or more images"),
        (["--surface=-3"], "--surface = -3: must be 1 or more images"),
        (["--surface", "--config.train.epochs=2"], "can change after training"),
    ],
)
def test_bad_flags_are_refused(finished_run, capsys, flags, message):
    assert evaluate.main(["--workdir", str(finished_run), *flags]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("flags", [["--surface", "many"], ["--surface", "--corruptions", "DIR"]])
def test_flags_that_do_not_go_together_are_refused(capsys, flags):
    with pytest.raises(SystemExit, match="2"):
        evaluate.main(["--workdir", "DIR", *flags])
    assert "--surface" in capsys.readouterr().err


def test_an_unfinished_run_is_refused(run_copy, capsys):
    (run_copy / "results.json").unlink()
    assert evaluate.main(["--workdir", str(run_copy), "--surface"]) == 2
    assert "must hold a finished training" in capsys.readouterr().err


def test_other_training_images_are_refused(run_copy, capsys):
    results = json.loads((run_copy / "results.json").read_text())
    results["data"]["sha256"] = "0" * 64
    (run_copy / "results.json").write_text(json.dumps(results))
    assert evaluate.main(["--workdir", str(run_copy), "--surface"]) == 2
    assert "digits is not the one that" in capsys.readouterr().err


def trained(folder, *overrides):
    flags = [f"--config.{override}" for override in overrides]
    assert main.main([*COMMAND, "--workdir", str(folder), "--config.train.epochs=2", *flags]) == 0
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["copies", "rank_one"])
def test_three_members_have_a_plane(tiny_network, small, tmp_path, kind):
    options = ("late_phase.num_members=3", f"late_phase.kind={kind}", "swa.start_epoch=0")
    folder = trained(tmp_path / "run", *options)
    found = surface(folder)
    plane = found.plane
    assert list(plane.networks) == ["member 0", "member 1", "member 2", "collapsed"]
    assert np.isfinite(plane.loss).all() and np.shape(plane.loss) == (3, 3)
    size = plane.networks["member 1"].x
    if kind == "copies":  # the collapsed network is their mean
        assert plane.networks["collapsed"].distance < 1e-3 * size
    xs = [plane.networks[f"member {k}"].x for k in range(3)]
    assert plane.networks["collapsed"].x == pytest.approx(np.mean(xs), rel=0.1)
    assert found.notes == []
    page = Page((folder / "report.html").read_text())
    assert any("plane through three members" in alt for alt in page.images)


@pytest.mark.slow
def test_one_network_has_curvature_and_no_lines(tiny_network, small, tmp_path):
    alone = ("late_phase.release_epoch=-1", "swa.start_epoch=0")
    found = surface(trained(tmp_path / "run", *alone))
    assert list(found.networks) == ["collapsed"] and found.lines == [] and found.plane is None
    assert "one member" in found.notes[0]
