"""What a report lacks, and what would give it."""

from lpw_jax.display import html_page

HEADING = "Not in this report"
NO_PREDICTIONS = (
    "There is no predictions/test.npz; the evaluation after training (or lpw_jax.evaluate) writes "
    "it."
)


class Absent(str):
    """HTML in place of a section: a page tells of it at its end."""


def absent(text: str) -> Absent:
    """A sentence, of plain text, on what a section needs."""
    return Absent(html_page.paragraph(text))
