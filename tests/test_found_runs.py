"""Runs under a folder that other people or programs filled: odd names, pipes, damaged files."""

import os

from page_reader import Page
from run_folders import served, write

from lpw_jax.report import found_runs


def test_folders_may_have_any_name_that_a_file_system_takes(tmp_path):
    names = [os.fsdecode(b"seed\xff"), "a?b#c%20d<b>&", "2²", "10 größer"]
    for name in names:
        write(tmp_path / name, finished=97.0)
    with served(tmp_path) as ask:
        page = Page(ask()[2])
        reports = [place for place in page.references if place.endswith("report.html")]
        assert len(reports) == len(names) and "seed%FF/report.html" in reports
        assert all(ask(f"/{place}")[0] == 200 for place in reports)
        assert "a?b#c%20d<b>&" in page.rows()


def test_pipes_in_place_of_a_runs_files_are_not_waited_for(tmp_path):
    for name in ("config.json", "metrics.jsonl", ".lock", "checksums.json"):
        run = write(tmp_path / name, losses=[2.0]).path / name
        run.unlink(missing_ok=True)
        os.mkfifo(run)
    write(tmp_path / "whole", losses=[2.0])
    found = {run.place: run.words for run in found_runs.Folder(tmp_path).look()[0]}
    assert found.keys() == {"metrics.jsonl", "whole"}
    assert found["metrics.jsonl"].startswith("stopped, 0 of ")


def test_a_damaged_file_is_told_again_and_again_without_growing(tmp_path):
    run = write(tmp_path / "a", losses=[2.0]).path
    (run / "metrics.jsonl").write_text("{}\n")
    folder = found_runs.Folder(tmp_path)
    first = folder.look()
    assert folder.look() == first and first[0][0].state == "damaged"
    kept = [held for parts in folder._kept.values() for held in parts]
    assert not any(isinstance(held, Exception) for held in kept)
