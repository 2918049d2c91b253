"""Tables of the terminal that wrap between words, and inside of one only where it is too long."""

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Column, Table


class WholeWords:
    """A table whose columns have room for their longest words, if that is possible.

    The widest columns are made narrower, as rich does it, but it does so whatever stands in them.
    """

    def __init__(self, table: Table):
        self._table = table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        columns = self._table.columns
        needs = [self._measured(console, options, column) for column in columns]
        for column in columns:
            column.width = None
        whole = Measurement.get(console, options.update(width=10_000), self._table).maximum
        room = options.max_width - (whole - sum(need.maximum for need in needs))
        widths = [need.maximum for need in needs]
        while sum(widths) > room:
            longer = [i for i, need in enumerate(needs) if widths[i] > need.minimum]
            if not longer:  # words must be broken: rich's way
                widths = [None] * len(columns)
                break
            widths[max(longer, key=lambda i: widths[i])] -= 1
        for column, width in zip(columns, widths, strict=True):
            column.width = width
        yield self._table

    def _measured(self, console: Console, options: ConsoleOptions, column: Column) -> Measurement:
        """The longest word and the longest line of a column."""
        cells = [column.header, *column.cells, *([column.footer] * self._table.show_footer)]
        found = [Measurement.get(console, options.update(width=10_000), cell) for cell in cells]
        least = column.min_width or 0
        minimum = max([least, *(cell.minimum for cell in found)])
        return Measurement(minimum, max([minimum, *(cell.maximum for cell in found)]))
