"""Text of users is shown as it is, whatever shows it."""

import io
import re
from html.parser import HTMLParser

import pytest
from rich.table import Table

from lpw_jax import plain_text
from lpw_jax.display import console, drawing, html_page

# Markup, controls and undecodable bytes, as in notes, paths and names of folders and configs.
TEXTS = (
    "runs/[bold]a[/bold]", "[/]", ":smile:", "\x1b[31mred\x1b[0m", "\x9b31m", "a\rb", "\x00\x7f",
    "\u202ea", "\udcff", "<script>&amp;</script>", "a | b", "`code`", "*a* _b_ ~c~", "$x$ $\\a$",
    "[x](http://e.org)", "www.e.org", "![i](u)",
    "a\n# b\n- c", "1. a", "- a", "# a", "&lt;", "a@b.c",
)  # fmt: skip
CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff]")


@pytest.mark.parametrize("text", TEXTS)
def test_the_terminal_shows_text_as_it_is(text, monkeypatch, capsys):
    screen = console.Terminal(file=io.StringIO(), width=200, force_terminal=True, no_color=True)
    monkeypatch.setattr(console, "terminal", screen)
    table = Table("column")
    table.add_row(text)
    console.say(text)
    console.say(table)
    console.warn(text)
    shown = screen.file.getvalue(), capsys.readouterr().err
    for found in (re.sub(r"\x1b\[[0-9;]*m", "", shown[0]), shown[1]):
        assert not CONTROLS.search(found)
        if "\n" not in text:
            assert plain_text.visible(text) in found
    assert "\x1b[31m" not in shown[0]


class Reader(HTMLParser):
    def __init__(self):
        super().__init__()
        self.text, self.tags = "", []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)

    def handle_data(self, data):
        self.text += data


@pytest.mark.parametrize("text", TEXTS)
def test_html_shows_text_as_it_is(text):
    reader = Reader()
    reader.feed(html_page.page(text, [(text, html_page.table((text,), [(text,)]))]))
    assert reader.text.count(plain_text.visible(text)) >= 4
    assert not set(reader.tags) & {"script", "i", "b", "a b"}


@pytest.mark.parametrize("text", TEXTS)
def test_markdown_shows_text_as_it_is(text):
    for found in (plain_text.markdown(text), plain_text.markdown_line(text)):
        assert "\n" not in found and not CONTROLS.search(found)
        unescaped = re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", found)
        assert unescaped == plain_text.visible(" ".join(text.split()))
        # No sign that means something to Markdown is left without its backslash.
        left = re.sub(r"\\.", "", found)
        assert not re.search(r"[`*_<\[|~$@]|&#?\w+;|://|www\.", left)
    assert not re.match(r"[-+#>=]|\d+[.)]", plain_text.markdown_line(text))


@pytest.mark.parametrize("text", TEXTS)
def test_figures_show_text_as_it_is(text):
    figure = drawing.new_figure()
    title = figure.suptitle(plain_text.figure(text))
    assert title._preprocess_math(title.get_text()) == (plain_text.visible(text), False)
