"""Tables of the command line. On a narrow terminal, names and arguments are shortened, numbers never."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.segment import Segment
from rich.table import Table as RichTable
from rich.text import Text

#: Least width of a name or an argument.
LEAST = 8
_GAP = 2


@dataclass(frozen=True)
class Cell:
    """A cell of a table; its lines are never wrapped.

    Arguments:
        text: its text; it may have several lines if it is not shortened.
        style: style of rich.
        least: characters that are kept when it is shortened; None if it is never shortened.
        middle: shorten it in the middle, instead of at the end.
    """

    text: str
    style: str = ""
    least: int | None = None
    middle: bool = False

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        length = max((len(line) for line in self.text.split("\n")), default=0)
        return Measurement(length if self.least is None else min(self.least, length), length)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        text = self.text if self.least is None else cut(self.text, options.max_width, self.middle)
        yield Text(text, self.style, no_wrap=True, overflow="crop", justify=options.justify, end="")


@dataclass(frozen=True)
class Listed:
    """A cell with several parts, on one line if there is room, else on several.

    Arguments:
        parts: the parts, which are never wrapped.
        style: style of rich.
    """

    parts: Sequence[str]
    style: str = ""

    @property
    def text(self) -> str:
        """All parts on one line."""
        return ", ".join(self.parts)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        widest = max((len(part) + 1 for part in self.parts), default=0)
        return Measurement(min(widest, len(self.text)), len(self.text))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text("\n".join(lines(self.parts, options.max_width)), self.style, no_wrap=True, overflow="crop")


def lines(parts: Sequence[str], width: int) -> Iterator[str]:
    """Yield lines of at most ``width`` characters with all parts, separated by commas."""
    line = ""
    for number, part in enumerate(parts):
        part += "," if number + 1 < len(parts) else ""
        if line and len(line) + 1 + len(part) > width:
            yield line
            line = part
        else:
            line = f"{line} {part}" if line else part
    if line:
        yield line


def cut(text: str, most: int, middle: bool = False) -> str:
    """Return a text of at most ``most`` characters, with an ellipsis where it was shortened."""
    if len(text) <= most:
        return text
    if most <= 1:
        return "…"[:most]
    if not middle:
        return f"{text[: most - 1]}…"
    head = (most - 1) // 3
    return f"{text[:head]}…{text[len(text) - (most - 1 - head) :]}"


def name(text: str, style: str = "") -> Cell:
    """Return a cell with a name, which may be shortened in the middle."""
    return Cell(_plain(text), style, LEAST, middle=True)


def words(text: str, style: str = "") -> Cell:
    """Return a cell with arguments or words, which may be shortened at the end."""
    return Cell(_plain(text), style, LEAST)


def _plain(text: str) -> str:
    """Return a text on one line."""
    return harmless(" ".join(text.split()))


def harmless(text: str) -> str:
    """Return a text without what would have the terminal do something else than to show it."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() or one in "\n\t" else "\N{REPLACEMENT CHARACTER}" for one in text)


def number(text: str, style: str = "") -> Cell:
    """Return a cell that is never shortened."""
    return Cell(text, style)


@dataclass
class Table:
    """A table. If it is too wide even when shortened, each row becomes a block of lines.

    Arguments:
        title: a line above it; "" for none.
        columns: titles of the columns; ``>`` at the end aligns a column to the right.
    """

    title: str
    columns: Sequence[str]
    rows: list[tuple[Cell | Listed, ...]] = field(default_factory=list)

    def add(self, *cells: Cell | Listed) -> None:
        """Add a row."""
        self.rows.append(cells)

    def _widths(self, console: Console, options: ConsoleOptions) -> list[int] | None:
        """Return the widths of the columns, the widest reduced first; None if even the least do not fit."""
        titles = [Cell(title.rstrip(">")) for title in self.columns]
        columns = zip(titles, *self.rows, strict=True)
        measured = [[cell.__rich_measure__(console, options) for cell in column] for column in columns]
        least = [max(one.minimum for one in column) for column in measured]
        most = [max(one.maximum for one in column) for column in measured]
        room = options.max_width - _GAP * (len(most) - 1)
        if sum(least) > room:
            return None
        widths, cap = most, max(most)
        while sum(widths) > room:
            cap -= 1
            widths = [min(high, max(low, cap)) for low, high in zip(least, most, strict=True)]
        return widths

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if self.title:
            yield Text(self.title, "bold")
        widths = self._widths(console, options)
        if widths is not None:
            table = RichTable(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), show_edge=False)
            for title, width in zip(self.columns, widths, strict=True):
                justify = "right" if title.endswith(">") else "left"
                head = Cell(title.rstrip(">"), "bold")
                table.add_column(head, justify=justify, width=width)  # type: ignore[arg-type]
            for row in self.rows:
                table.add_row(*row)
            for line in console.render_lines(table, options.update(min_width=0), pad=False):
                yield from _stripped(line)
                yield Segment.line()
            return
        for row in self.rows:
            first, *others = row
            if first.text:
                yield Text(cut(first.text, options.max_width, middle=True), first.style or "bold", no_wrap=True)
            told: list[str] = []
            for title, cell in zip(self.columns[1:], others, strict=True):
                parts = cell.parts if isinstance(cell, Listed) else [cell.text.replace("\n", " ")][: bool(cell.text)]
                told += [f"{title.rstrip('>')} {part}" if number == 0 else part for number, part in enumerate(parts)]
            for shown in lines([cut(one, options.max_width - 3) for one in told], options.max_width - 2):
                yield Text(f"  {shown}", no_wrap=True)


def _stripped(line: list[Segment]) -> list[Segment]:
    """Return a line without trailing spaces."""
    kept = list(line)
    while kept and not kept[-1].text.strip():
        kept.pop()
    if kept:
        last = kept[-1]
        kept[-1] = Segment(last.text.rstrip(), last.style)
    return kept
