"""Text of users is text: never markup, nor control of what shows it. One function a target."""

import html as _html
import re

# Controls but tabs and new lines, what reverses or breaks lines, and halves of characters.
_UNSEEN = re.compile(r"[^\t\n -~\u00a0-\u2027\u202f-\u2065\u206a-\ud7ff\ue000-\U0010ffff]")
_MARKDOWN = re.compile(r"[\\`*_<\[|~$@]|&(?=#?\w+;)|:(?=//)|(?<=\bwww)\.")
_BLOCK = re.compile(r"^(?:[-+#>=](?=\s|[-+#>=]|$)|\d+(?=[.)]))")  # a list, a heading, a rule


def visible(text: str) -> str:
    """For terminals, and any file in UTF-8: control characters are shown as escapes, `\\x1b`."""
    return _UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def markdown(text: str) -> str:
    """For a title or cell of Markdown: neither markup, links, HTML nor new lines."""
    return _MARKDOWN.sub(r"\\\g<0>", visible(" ".join(text.split())))


def markdown_line(text: str) -> str:
    """The same where a line begins, which could begin a list, a heading or a rule."""
    return _BLOCK.sub(_escaped_block, markdown(text))


def markdown_code(text: str) -> str:
    """For Markdown, in the type of code."""
    return f"`{visible(' '.join(text.split())).replace('`', chr(39))}`"


def html(text: str) -> str:
    """For HTML, in its text and in quoted attributes."""
    return _html.escape(visible(text))


def figure(text: str) -> str:
    """For matplotlib's figures, where dollars would enclose formulas."""
    return visible(text).replace("$", r"\$")


def _escaped_block(found: re.Match) -> str:
    return f"{found[0]}\\" if found[0].isdigit() else f"\\{found[0]}"
