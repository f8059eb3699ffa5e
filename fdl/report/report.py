"""report.html: one self-contained page. Its content is a `Page`, filled by a run, a study or a sweep."""

from __future__ import annotations

import dataclasses
import datetime
import functools
import itertools
import textwrap
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from absl import logging

from fdl.files import write_all
from fdl.report.formatting import breakable, cell
from fdl.tasks.panels import figures
from fdl.tasks.task import DrawPanel, Panel


@dataclasses.dataclass(frozen=True)
class Headline:
    """The figure that a reader looks for first.

    Attributes:
        label: what it is ("test accuracy").
        value: the figure; "" where there is none yet.
        rivals: (name, figure) of the naive methods to compare it with.
    """

    label: str
    value: str
    rivals: Sequence[tuple[str, str]] = ()


@dataclasses.dataclass(frozen=True)
class Page:
    """The content of a report, from top to bottom.

    Attributes:
        title: the heading.
        sections: a function for each section, called when the page is written; see `draw`.
        status: a word or two beside the title.
        doc: a docstring; its first line is shown under the title, the rest on demand.
        banners: warnings shown at the top.
        headline: the figure at the top, if there is one.
        facts: (name, value) pairs: the run at a glance.
    """

    title: str
    sections: Sequence[DrawPanel] = ()
    status: str = ""
    doc: str = ""
    banners: Sequence[str] = ()
    headline: Headline | None = None
    facts: Sequence[tuple[str, str]] = ()


@dataclasses.dataclass(frozen=True)
class Table(Panel):
    """A panel whose rows of the given numbers are printed `strong`, in a fixed-width font where it holds `code`."""

    strong: frozenset[int] = frozenset()
    code: bool = False


@dataclasses.dataclass(frozen=True)
class Section:
    """A panel as the template prints it: the figure as a data URI, cells as (text, is it a number), or the error alone."""

    title: str
    caption: str = ""
    image: str = ""
    width: int = 0
    header: Sequence[tuple[str, bool | None]] = ()
    rows: Sequence[Sequence[tuple[str, bool]]] = ()
    text: str = ""
    strong: frozenset[int] = frozenset()
    code: bool = False
    error: str = ""


def write_report(workdir: Path, page: Page, between: Callable[[], None] = lambda: None) -> Path:
    """Write workdir/report.html, completely or not at all, and return its path. Everything on it is escaped.

    Args:
        workdir: the run directory, made if missing.
        page: what to write.
        between: called before each section is drawn; may raise to leave early.

    Raises:
        UserError: `workdir` cannot be written to.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    about, _, more = page.doc.strip().partition("\n")
    html = environment.get_template("report.html.j2").render(
        page=page,
        about=about,
        more=textwrap.dedent(more).strip(),
        sections=draw(page.sections, between),
        written=datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
    )
    return write_all(workdir, {"report.html": html.encode("utf-8", "backslashreplace")})[0]


def draw(sections: Iterable[DrawPanel], between: Callable[[], None] = lambda: None) -> list[Section]:
    """Draw one section after the other. One that raises is logged and replaced by a note of its error."""
    drawn = []
    for function in sections:
        between()  # outside the `try`: it may raise to leave early
        title = "A panel that failed"
        try:
            panel = function()
            if panel is None:
                continue
            if not isinstance(panel, Panel):
                raise TypeError(f"expected a Panel, got {type(panel).__name__}")
            title = panel.title
            drawn.append(_section(panel))
        except Exception as error:  # no error in a drawing may cost the whole page
            logging.exception("report: %s", title)
            drawn.append(Section(title, error=f"{type(error).__name__}: {error}"))
    return drawn


def list_panels(panels: Callable[[], Iterable[Panel | DrawPanel]]) -> list[DrawPanel]:
    """List the functions that `panels` returns, for a `Page`; if it raises, the last function raises the same.

    Panels that are drawn already (a user's plain list, or a generator) are taken as they are.
    """
    functions: list[DrawPanel] = []
    try:
        for entry in panels():
            functions.append(entry if callable(entry) else functools.partial(_same, entry))
    except Exception as error:
        functions.append(functools.partial(_fail, error))
    return functions


def _same(panel: Panel) -> Panel:
    return panel


def _fail(error: Exception) -> Panel:
    raise error


def _section(panel: Panel) -> Section:
    table = panel if isinstance(panel, Table) else Table(panel.title)
    cells = [[cell(value) for value in row] for row in panel.rows]
    rows = [[(text, is_number and not table.code) for text, is_number in row] for row in cells]
    aligned = [is_number for _, is_number in rows[-1]] if rows else []
    return Section(
        title=panel.title,
        caption=panel.caption,
        image=figures.data_uri(panel.figure) if panel.figure is not None else "",
        width=round(panel.figure.get_figwidth() * 100) if panel.figure is not None else 0,
        header=list(itertools.zip_longest(map(breakable, panel.header), aligned[: len(panel.header)])),
        rows=rows,
        text=panel.text,
        strong=table.strong,
        code=table.code,
    )
