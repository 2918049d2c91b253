"""The program that compares: its four outputs, its exit codes and its messages."""

import itertools
import json
import re
from html.parser import HTMLParser

import page_reader
import pytest
from comparison_files import (
    results,
    write,
    write_overview,
    write_seeds,
)

from lpw_jax import compare, plain_text
from lpw_jax.comparison import page, words
from lpw_jax.display import console

VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """Collects what a page refers to and shows; refuses tags that do not match."""

    def __init__(self, text):
        super().__init__()
        self.open, self.attributes, self.text, self.headings = [], [], "", []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)


def call(capsys, *arguments):
    """(exit code, stdout, stderr)."""
    code = compare.main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture
def trees(tmp_path):
    """Three seeds of late-phase and of base SGD, with one unfinished run."""
    write_seeds(tmp_path / "cifar10_bn", "cifar10_bn", [96.35, 96.45, 96.6])
    write_seeds(tmp_path / "cifar10_sgd", "cifar10_sgd", [95.9, 96.0, 96.15])
    (tmp_path / "cifar10_sgd" / "seed3").mkdir()
    (tmp_path / "cifar10_sgd" / "seed3" / "config.json").write_text("{}")
    return tmp_path


def report(folder):
    return json.loads((folder / "comparison.json").read_text())


def test_all_four_outputs_say_the_same(trees, tmp_path, capsys):
    out = tmp_path / "out"
    code, terminal, stderr = call(
        capsys, trees / "cifar*", "--against", "published", "--out", out, "--margin", "0.4"
    )
    assert code == 0
    assert "seed3: not finished" in stderr
    markdown = (out / "comparison.md").read_text()
    html = Page((out / "comparison.html").read_text())
    found = report(out)
    assert found["margins"] == {"points": 0.4}
    assert len(found["comparisons"]) == 2
    for comparison in found["comparisons"]:
        (row,) = comparison["rows"]
        heading = f"{comparison['ours']} against {comparison['theirs']} (published)"
        assert f"## {plain_text.markdown(heading)}" in markdown
        assert heading in html.headings and heading in terminal
        ours = words.sample(row["ours"], 2)
        for text in (terminal, markdown, html.text.replace("\N{NO-BREAK SPACE}", " ")):
            assert ours in text and row["shown"] in text and "seed3" in text + stderr
    assert "96.47 ± 0.13 (3)" in markdown
    assert "BatchEnsemble" in markdown and "BatchEnsemble" in html.text


def test_the_page_needs_nothing_from_outside(trees, tmp_path, capsys):
    call(capsys, trees / "cifar*", "--out", tmp_path / "out")
    text = (tmp_path / "out" / "comparison.html").read_text()
    html = Page(text)
    assert "http" not in text and "//" not in text
    links = [value for name, value in html.attributes if name == "href"]
    assert links and all(f' id="{link[1:]}"' in text for link in links)
    assert not [value for name, value in html.attributes if name == "src"]
    figures = page_reader.Page(text)
    assert len(figures.images) == 10
    told = figures.told["accuracy, points: ours - theirs (better: right)"]
    row = report(tmp_path / "out")["comparisons"][0]["rows"][0]
    shown = ["cifar10_sgd against cifar10_bn", "collapsed", words.difference(row, 2), row["shown"]]
    assert (row["quantity"], row["view"]) == ("accuracy", "collapsed") and shown in told


def test_what_users_named_is_text_and_no_markup(tmp_path, capsys):
    for name, epochs in (("<b>a|b", 150), ("c", 160)):
        changed = [f"--config.train.epochs={epochs}"]
        write_seeds(tmp_path / name, "cifar10_sgd", [96.0, 96.1], overrides=changed, note="<i>")
    call(capsys, tmp_path / "c", tmp_path / "<b>a|b", "--out", tmp_path / "out")
    html = Page((tmp_path / "out" / "comparison.html").read_text())
    assert "<b>a|b against c" in html.headings and "<i>" in html.text
    markdown = (tmp_path / "out" / "comparison.md").read_text()
    row = next(line for line in markdown.splitlines() if line.startswith(r"| \<b>a\|b"))
    assert len(re.findall(r"(?<!\\)\|", row)) == len(re.findall(r"(?<!\\)\|", markdown.split(
        "| run | view")[1].splitlines()[0])) + 2  # fmt: skip


def test_figures_are_made_with_any_verdict(trees, tmp_path, capsys):
    call(capsys, trees / "cifar*", "--out", tmp_path / "out")
    found = report(tmp_path / "out")
    verdicts = itertools.cycle(["equivalent", "better", "worse", "undecided", "no verdict"])
    for row, verdict in zip(found["comparisons"][0]["rows"], verdicts, strict=False):
        row["verdict"] = verdict
        if verdict == "no verdict":
            row["low"] = row["high"] = None
    Page(page.page(found))


def test_without_against_the_others_are_beside_the_first_or_the_baseline(trees, tmp_path, capsys):
    for options, expected in (([], "cifar10_bn"), (["--baseline", "cifar10_sgd"], "cifar10_sgd")):
        code, *_ = call(capsys, trees / "cifar*", *options, "--out", tmp_path / "out")
        (comparison,) = report(tmp_path / "out")["comparisons"]
        assert (code, comparison["theirs"]) == (0, expected)


def test_the_verdict_is_that_of_the_statistics(tmp_path, capsys):
    write_seeds(tmp_path / "sgd", "cifar10_sgd", [95.9, 96.0, 96.1])
    write_seeds(tmp_path / "late", "cifar10_bn", [97.4, 97.5, 97.6])
    call(capsys, tmp_path / "sgd", tmp_path / "late", "--out", tmp_path / "out")
    rows = report(tmp_path / "out")["comparisons"][0]["rows"]
    row = next(r for r in rows if (r["view"], r["quantity"]) == ("collapsed", "accuracy"))
    assert row["difference"] == pytest.approx(1.5)
    # Both spreads are 0.1, so Welch has 4 degrees of freedom, of which t is 2.776.
    half = 2.7764451 * 0.1 * (2 / 3) ** 0.5
    assert (row["low"], row["high"]) == pytest.approx((1.5 - half, 1.5 + half))
    assert row["verdict"] == row["shown"] == "better"
    nll = next(r for r in rows if (r["view"], r["quantity"]) == ("collapsed", "nll"))
    assert nll["difference"] < 0 and nll["verdict"] == "better" and nll["tost_p"] is None


def test_an_equivalence_with_a_significant_difference_is_explained(trees, capsys):
    for accuracies, explained in (([96.70, 96.71, 96.72], True), ([96.45, 96.46, 96.47], False)):
        write_seeds(trees / "c", "cifar10_bn", accuracies)
        _, terminal, _ = call(capsys, trees / "c", "--against", "published")
        line = "collapsed accuracy, %, equivalent: a significant difference"
        assert " equivalent" in terminal and (line in " ".join(terminal.split())) == explained


def test_one_seed_gives_no_verdict_and_says_so(tmp_path, capsys):
    write_seeds(tmp_path, "cifar10_bn", [96.4])
    code, terminal, _ = call(capsys, tmp_path, "--against", "published")
    assert code == 0 and "no verdict: one seed" in terminal


def test_runs_beside_the_pytorch_code(trees, tmp_path, capsys):
    for seed, accuracy in enumerate((0.9640, 0.9650, 0.9655)):
        write_overview(tmp_path / "torch" / f"seed{seed}", accuracy=accuracy)
    code, *_ = call(
        capsys, trees / "cifar10_bn", "--against", tmp_path / "torch", "--out", tmp_path / "out"
    )
    (comparison,) = report(tmp_path / "out")["comparisons"]
    assert code == 0 and comparison["marks"] == []
    assert {row["quantity"] for row in comparison["rows"]} == {
        "accuracy", "nll", "auroc_LSUN", "auroc_TIN", "auroc_SVHN", "auroc_CIFAR", "auroc_mean",
    }  # fmt: skip
    assert {row["view"] for row in comparison["rows"]} == {"collapsed"}
    assert any("10,000 test images" in remark for remark in comparison["remarks"])


def test_runs_beside_results_files_of_other_runs(trees, tmp_path, capsys):
    write_seeds(tmp_path / "rerun", "cifar10_bn", [96.4, 96.5])
    files = sorted((tmp_path / "rerun").glob("*/results.json"))
    code, *_ = call(
        capsys, trees / "cifar10_bn", "--against", *files, "--out", tmp_path / "out"
    )  # fmt: skip
    (comparison,) = report(tmp_path / "out")["comparisons"]
    assert code == 0 and comparison["differing_settings"] == {} and comparison["kind"] == "runs"


def test_costs_are_those_of_the_results(trees, tmp_path, capsys):
    call(capsys, trees / "cifar*", "--out", tmp_path / "out")
    late, sgd = (side["cost"] for side in report(tmp_path / "out")["sides"])
    assert late["forward_passes"] == {"collapsed": 1, "ensemble": 10}
    assert sgd["forward_passes"] == {"collapsed": 1, "ensemble": 1}
    assert late["device_hours"] == pytest.approx(4)  # two hours on two devices
    assert late["num_parameters"] == 36489290
    assert late["peak_memory_bytes"] == 18_000_000_000


def test_costs_that_old_results_do_not_tell_are_dashes(tmp_path, capsys):
    found = results("cifar10_bn")
    for name in ("num_devices", "device_kind", "peak_memory_bytes"):
        del found["train"][name]
    write(tmp_path / "run", found)
    code, terminal, _ = call(capsys, tmp_path / "run", "--out", tmp_path / "out")
    (side,) = report(tmp_path / "out")["sides"]
    assert code == 0 and "there is only one config" in terminal
    assert side["cost"]["device_hours"] is side["cost"]["peak_memory_bytes"] is None


def test_a_run_is_never_beside_itself_however_it_is_named(trees, capsys, monkeypatch):
    monkeypatch.chdir(trees)
    for other in (trees / "cifar10_bn", "./cifar10_sgd/../cifar10_bn", "cifar10_bn/seed2"):
        code, _, stderr = call(capsys, "cifar10_bn", "--against", other)
        assert code == 2 and "is among RUNS, too" in " ".join(stderr.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{}/missing"], "there is no such file or folder"),
        (["{}/cifar10_sgd/seed3"], "none of RUNS is finished"),
        (["{}/cifar10_bn", "--margin", "-1"], "must be a number > 0"),
        (["{}/cifar10_bn", "{}/cifar10_sgd", "--baseline", "x"], "must be one of cifar10_bn, cif"),
        (["{}/cifar10_bn", "--against", "published", "--baseline", "x"], "leave out"),
        (
            ["{}/cifar10_bn", "--against", "published", "{}/cifar10_sgd"],
            "either published or FILES",
        ),
        (
            ["{}/cifar10_bn", "--against", "{}/cifar10_sgd/seed3"],
            "no run after --against is finished",
        ),
        (["{}/cifar10_bn", "--out", "{}/cifar10_bn/seed0/results.json"], "--out"),
        (["{}/digits", "--against", "published"], "nothing can be compared"),
        (["{}/digits", "{}/cifar10_bn"], "nothing can be compared"),
        (["{}/cifar10_bn", "--against", "{}/*"], "is among RUNS, too"),
        (["{}/cifar10_bn", "--against", "{}/link/seed1"], "is among RUNS, too"),
        (["{}/torch"], "must come after --against"),
    ],
)
def test_mistakes_end_with_code_2_and_one_message(arguments, message, trees, capsys):
    write_seeds(trees / "digits", "digits_bn", [99.0])
    write_overview(trees / "torch")
    (trees / "link").symlink_to(trees / "cifar10_bn")
    code, _, stderr = call(capsys, *(argument.format(trees) for argument in arguments))
    assert code == 2
    assert message in " ".join(stderr.split())
    assert "Traceback" not in stderr


def test_tables_fit_on_80_columns(trees, capsys, monkeypatch):
    monkeypatch.setattr(console.terminal, "_width", 80)
    _, terminal, _ = call(capsys, trees / "cifar*")
    assert "96.47 ± 0.13 (3)" in terminal
    assert max(map(len, terminal.splitlines())) <= 80
    assert re.search(r"\baccuracy, %", terminal) and re.search(r"\bcollapsed\b", terminal)
