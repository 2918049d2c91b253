"""Tables of the terminal at 80 and 120 columns: whole words, and colours for terminals alone."""

import io

import comparison_files
import pytest
from rich.table import Table
from rich.text import Text

from lpw_jax.comparison import published, report, runs, text
from lpw_jax.comparison.quantities import read_margins
from lpw_jax.display import console
from lpw_jax.display.whole_words import WholeWords


def shown(what, *, width, **options):
    paper = console.Terminal(file=io.StringIO(), width=width, **options)
    paper.print(what)
    return paper.file.getvalue()


def words_of(table):
    for column in table.columns:
        for cell in (column.header, *column.cells):
            yield from (cell.plain if isinstance(cell, Text) else cell).split()


def table_of(*columns):
    table = Table()
    for cells in columns:
        table.add_column(cells[0], overflow="fold")
    for row in zip(*(cells[1:] for cells in columns), strict=True):
        table.add_row(*row)
    return table


@pytest.mark.parametrize("width", [80, 120])
def test_comparisons_break_no_word(width, tmp_path):
    names = ("cifar100_bn", "cifar100_hnet_swa", "cifar100_wrn14_bn_swa")
    for name in names:
        comparison_files.write_seeds(tmp_path / name, name, [96.0, 96.5, 97.0])
    sides = runs.gather([str(tmp_path / name) for name in names], left_out=[])
    margins = read_margins(())
    for found in (
        report.among(sides, baseline=None, margins=margins),
        report.against(sides, published.sides(), margins=margins),
    ):
        tables = [part for part in text.terminal(found).renderables if isinstance(part, WholeWords)]
        assert len(tables) >= 4
        for table in tables:
            assert set(words_of(table._table)) <= set(shown(table, width=width).split())


def test_a_word_is_broken_only_where_no_width_has_room_for_it():
    wide = table_of(["name", "members of this run"], ["value", "a_long_word_of_27_characters"])
    assert set(words_of(wide)) <= set(shown(WholeWords(wide), width=42).split())
    narrow = shown(WholeWords(wide), width=24)
    assert max(map(len, narrow.splitlines())) <= 24 and "a_long_w" in narrow
    assert shown(WholeWords(wide), width=120) == shown(wide, width=120)


def test_numbers_of_weights_are_whole_beside_long_names():
    count = {"shared": 1_234_567_890, "late_phase": 12_345_678}
    lines = shown(console.parameter_table({"m" * 60: count}), width=80)
    assert {"1,234,567,890", "12,345,678", "1,246,913,568"} <= set(lines.split())
    assert lines.count("m") > 60 and max(map(len, lines.splitlines())) <= 80


def test_colours_are_for_terminals_without_no_color(monkeypatch):
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    coloured = Text("better", style="green")
    assert "\x1b[32m" in shown(coloured, width=80, force_terminal=True)
    assert shown(coloured, width=80) == "better\n"
    monkeypatch.setenv("NO_COLOR", "1")
    assert shown(coloured, width=80, force_terminal=True) == "better\n"
