"""report.html as a parser and a reader see it: whole, self-contained, escaped, and never lost to one bad panel."""

from __future__ import annotations

import base64
import io
import math
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small
from forked import Command
from PIL import Image

from fdl.report import record, report
from fdl.report.describe import Layer
from fdl.report.formatting import duration, number
from fdl.report.report import list_panels
from fdl.tasks import Classification, Panel
from fdl.tasks.panels import figures
from fdl.tasks.task import MetricStyle
from fdl.types import RunError

EVIL = '<script>alert("x")</script>'


class Page(HTMLParser):
    """The tags, ids, links and text of a page; every opened element must be closed in its place."""

    VOID = ("meta", "img", "br", "hr", "link")

    def __init__(self, html: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text += data.replace("\N{ZERO WIDTH SPACE}", "")

    def all(self, attribute: str) -> list[str]:
        return [value for name, value in self.attributes if name == attribute]


def summary(**changes: Any) -> dict[str, Any]:
    return {
        "status": "complete",
        "steps": 1200,
        "best_step": 80,
        "data": {
            "name": "mnist", "source": "files", "where": "IDX files", "sha256": "ab12", "train_examples": 55000,
            "eval_examples": 5000, "test_examples": 10000, "standin": False, "leaks": {"validation": 0, "test": 0},
        },
        "metrics": {"test/accuracy": 0.9312, "test/loss": 0.2034, "eval/accuracy": 0.5},
        "baselines": {"majority class": {"test/accuracy": 0.1}},
        "timing": {"training": 185.0, "to_first_step": 4.25, "examples_per_second": None},
        "peak_rss_bytes": 3 * 2**20,
        "devices": ["cpu:0", "cpu:1"],
        "state_sha256": "cd34",
    } | changes  # fmt: skip


CONFIG = {
    "experiment": "mnist_cnn",
    "settings": {"batch_size": "128", "model.dropout": "0.3"},
    "overrides": ["model.dropout=0.3"],
    "command": "python -m fdl.main --experiment=mnist_cnn",
    "versions": {"jax": "0.10.2"},
    "git_commit": "f00d",
}
HISTORY = [
    {"step": i, "epoch": i / 50, "train/loss": 2 / i, "learning_rate": 0.1, "examples_per_second": 100.0 + i}
    | ({"eval/loss": 2.1 / i, "eval/accuracy": 1 - 1 / i} if i % 20 == 0 else {})
    for i in range(1, 101)
]


def write(tmp_path: Path, **changes: Any) -> tuple[Page, str]:
    """A run's page, drawn as the command line draws it, with `panels` for the task's."""
    history, panels = changes.pop("history", HISTORY), changes.pop("panels", ())
    style = Classification().metric_style
    wanted: dict[str, Any] = {"config": CONFIG, "summary": summary(), "monitor": "accuracy", "style": style}
    sections = [lambda: record.training(history, "accuracy", 80), *list_panels(lambda: panels)]
    page = record.record_page(**(wanted | {"sections": sections} | changes))
    html = report.write_report(tmp_path, page).read_text(encoding="utf-8")
    return Page(html), html


def test_the_page_says_what_was_done(tmp_path: Path) -> None:
    layers = [Layer("conv1", "Conv", (26, 26, 64), 640, 1000), Layer("output", "Dense", (10,), 1290, 0)]
    page, html = write(tmp_path, doc="A small network.\n\n    Source: a paper\n", layers=layers)
    for words in (
        "mnist_cnn", "A small network.", "Source: a paper", "complete", "93.12%", "10.00%", "0.2034", "IDX files",
        "55,000 training · 5,000 validation · 10,000 test", "1,200", "3 min 5 s", "4.25 s", "3 MiB", "cpu:0, cpu:1",
        "26x26x64", "1,930",
        "python -m fdl.main --experiment=mnist_cnn", "jax 0.10.2", "f00d", "ab12", "cd34", "2 epochs",
    ):  # fmt: skip
        assert words in page.text, words
    assert "50.00%" not in page.text  # the validation split's figure is not the test's
    assert "Stand-in" not in page.text
    assert "Leak" not in page.text
    strong = re.findall(r'<tr class="strong">.*?</tr>', html, re.S)
    assert [next(word for word in ("this model", "total", "model.dropout") if word in row) for row in strong] == [
        "this model", "total", "model.dropout",
    ]  # fmt: skip
    assert page.text.count("set by --set") == 1


def test_the_page_is_complete_in_itself(tmp_path: Path) -> None:
    figure, axes = figures.new(2)
    axes[0, 0].plot([1, 2])
    page, html = write(tmp_path, panels=[Panel("A", figure=figure)])
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert all(source.startswith("data:image/") for source in page.all("src"))
    assert len(page.all("src")) == 2
    assert not re.search(r"url\(|@import|https?://", html)
    anchors = [link.removeprefix("#") for link in page.all("href")]
    assert anchors
    assert set(anchors) <= set(page.all("id"))
    assert len(page.all("id")) == len(set(page.all("id")))
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_everything_is_escaped(tmp_path: Path) -> None:
    panel = Panel(EVIL, EVIL, header=(EVIL,), rows=[(EVIL,)], text=EVIL)
    config = CONFIG | {"experiment": EVIL, "settings": {EVIL: EVIL}, "command": EVIL, EVIL: EVIL}
    data = {"name": EVIL, "source": EVIL, "where": EVIL, "standin": True, "leaks": {EVIL: 3}}
    figures_of = {"baselines": {EVIL: {"test/accuracy": 0.1}}, "metrics": {f"test/{EVIL}": 1}}
    said = summary(status=EVIL, data=data, devices=[EVIL], **figures_of)
    page, html = write(
        tmp_path, config=config, summary=said, doc=f"{EVIL}\n{EVIL}", panels=[panel],
        layers=[Layer(EVIL, EVIL, (), 1, 1)],
    )  # fmt: skip
    assert "script" not in page.tags
    assert "<script" not in html
    assert page.text.count(EVIL) >= 18


def test_figures_are_escaped_and_readable() -> None:
    figure, axes = figures.new(2)
    figures.titled(axes[0, 0], figures.label(EVIL + "$\\frac$", 60))
    axes[0, 0].set_xticks([0], [figures.label("$a_$ \n \N{CJK UNIFIED IDEOGRAPH-6F22}")])
    kind, _, content = figures.data_uri(figure).partition(",")
    assert kind == "data:image/svg+xml;base64"
    assert b"<script" not in base64.b64decode(content)
    assert figures.data_uri(figure) == f"{kind},{content}"  # the same drawing, the same bytes


def test_pictures_become_png_of_two_dots_a_pixel_and_large_ones_shrink() -> None:
    figure, axes = figures.new(3.0, 4.0)
    axes[0, 0].imshow(np.random.default_rng(0).random((300, 400, 3)))
    whole, small = (figures.data_uri(figure, limit) for limit in (10**9, 1000))
    assert len(small) < 0.6 * len(whole)
    for uri in (whole, small):
        kind, _, content = uri.partition(",")
        assert kind == "data:image/png;base64"
        assert Image.open(io.BytesIO(base64.b64decode(content))).size == (800, 600)


def test_a_stand_in_is_never_passed_for_the_real_set(tmp_path: Path) -> None:
    page, _ = write(tmp_path, summary=summary(data={"name": "mnist", "source": "builtin", "standin": True}))
    assert "Stand-in data: this run used mnist" in page.text
    page, _ = write(tmp_path, summary=summary(data={"name": "my-standin", "source": "builtin", "standin": False}))
    assert "Stand-in" not in page.text


def test_rows_in_two_splits_are_counted_beside_the_sizes_and_warned_of(tmp_path: Path) -> None:
    data = summary()["data"] | {"leaks": {"validation": 0, "test": 1234}}
    page, html = write(tmp_path, summary=summary(data=data))
    assert "10,000 test · 1,234 of test in training too" in page.text
    (banner,) = re.findall(r'<p class="banner">(.*?)</p>', html, re.S)
    assert "1,234 test rows are in the training split" in banner
    assert "validation" not in banner


def test_the_task_says_how_its_metrics_are_shown(tmp_path: Path) -> None:
    def style(name: str) -> MetricStyle:
        return {"bleu": MetricStyle(percent=True), "loss": MetricStyle(unit="nats")}.get(name, MetricStyle())

    said = summary(metrics={"test/loss": 1.5213, "test/bleu": 0.25, "test/accuracy": 0.5}, baselines={})
    page, html = write(tmp_path, summary=said, monitor="loss", style=style)
    assert re.search(r'<div class="big">(.*?)</div>', html)[1] == "1.521 nats"  # type: ignore[index]
    assert "25.00%" in page.text
    assert "50.00%" not in page.text  # this task does not call accuracy a share
    assert "loss (nats)" in page.text


class Undrawable:
    axes = ()

    def get_figwidth(self) -> float:
        return 1.0

    def savefig(self, *_: Any, **__: Any) -> None:
        raise MemoryError("no room to draw")


def test_one_bad_panel_does_not_lose_the_others(tmp_path: Path) -> None:
    def broken() -> Panel:
        raise ValueError(f"broken {EVIL}")

    panels = [
        lambda: Panel("Panel 0", text="kept"), broken, lambda: Panel("Panel 2", figure=Undrawable()), lambda: None,  # type: ignore[arg-type]
        lambda: Panel("Panel 4", text="kept"),
    ]  # fmt: skip
    page, html = write(tmp_path, panels=panels)
    assert page.text.count("kept") == 2
    assert "ValueError: broken <script>" in page.text
    assert "MemoryError: no room to draw" in page.text
    assert "<script" not in html
    assert "Panel 2" in page.text  # whose figure failed has its title still


def test_panels_that_are_drawn_already_and_a_generator_that_fails() -> None:
    def some() -> Iterator[Panel]:
        yield Panel("First")
        raise KeyError("gone")

    def none_at_all() -> list[Panel]:
        raise AttributeError("no such thing")

    for panels, titles, errors in (
        (lambda: [Panel("One"), Panel("Two")], ["One", "Two"], ["", ""]),
        (some, ["First", "A panel that failed"], ["", "KeyError: 'gone'"]),
        (none_at_all, ["A panel that failed"], ["AttributeError: no such thing"]),
        (lambda: None, ["A panel that failed"], ["TypeError: 'NoneType' object is not iterable"]),
        (lambda: [lambda: "text"], ["A panel that failed"], ["TypeError: expected a Panel, got str"]),
        (lambda: [3, Panel("Two")], ["A panel that failed", "Two"], ["TypeError: expected a Panel, got int", ""]),
    ):
        sections = report.draw(list_panels(panels))  # type: ignore[arg-type]
        assert [section.title for section in sections] == titles
        assert [section.error for section in sections] == errors


def test_who_is_told_to_stop_leaves_between_two_panels(tmp_path: Path) -> None:
    class Stopped(BaseException):
        pass

    drawn: list[int] = []

    def between() -> None:
        if len(drawn) == 2:
            raise Stopped

    def panel(number: int) -> Panel:
        drawn.append(number)
        return Panel("x")

    with pytest.raises(Stopped):
        report.write_report(tmp_path, report.Page("x", [lambda i=i: panel(i) for i in range(4)]), between)  # type: ignore[misc]
    assert drawn == [0, 1]
    assert list(tmp_path.iterdir()) == []


PANELS = """
import dataclasses
from experiments import digits_cnn
from fdl.tasks import Classification
from fdl.tasks.task import Panel

def fail():
    raise RuntimeError("no such picture")

@dataclasses.dataclass(frozen=True)
class Mine(Classification):
    how: str = "functions"

    def panels(self, view):
        if self.how == "nothing":
            raise KeyError("eager")
        return [lambda: Panel("First one"), fail, lambda: Panel("Third one")]

    def baselines(self, splits):
        raise ValueError("no baselines here")

def experiment():
    return dataclasses.replace(digits_cnn.experiment(), task=Mine(), steps=3)
"""


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("functions", ["First one", "A panel that failed", "RuntimeError: no such picture", "Third one", "Parameters"]),
        ("nothing", ["A panel that failed", "KeyError: 'eager'", "Parameters"]),
    ],
)
def test_a_run_of_the_command_line_keeps_every_panel_that_can_be_drawn(
    run_fdl: Command, tmp_path: Path, how: str, says: list[str]
) -> None:
    (tmp_path / "mine.py").write_text(PANELS)
    done = run_fdl(tmp_path, "--experiment=mine.py", "--workdir=run", "--set", f"task.how={how}")
    page = Page((tmp_path / "run" / "report.html").read_text())
    places = [page.text.rfind(words) for words in says]
    assert places == sorted(places)
    assert places[0] > 0
    assert "A panel that failed" in says or "could not be drawn" not in page.text
    assert "no baselines: ValueError: no baselines here" in done.stderr
    assert small.summary(tmp_path / "run")["baselines"] == {}


def test_with_almost_nothing_there_is_a_page(tmp_path: Path) -> None:
    page, _ = write(tmp_path, config={}, summary={}, history=[])
    assert "Nothing was logged" in page.text
    report.write_report(tmp_path, report.Page("bare"))


@pytest.mark.parametrize("value", [math.nan, math.inf, None, "NaN"])
def test_figures_that_are_no_numbers(value: Any, tmp_path: Path) -> None:
    history = [*HISTORY, {"step": 101, "train/loss": value, "eval/accuracy": value, "learning_rate": value}]
    page, _ = write(tmp_path, history=history, summary=summary(metrics={"test/accuracy": value}))
    assert "could not be drawn" not in page.text
    write(tmp_path, history=[{"step": 1, "train/loss": value}])


def test_curves_show_what_was_logged_and_thin_long_histories() -> None:
    long = [{"step": i, "train/loss": float(i), "eval/accuracy": 0.5} for i in range(1, 10_001)]
    figure = figures.curves(long, "accuracy", best_step=40)
    assert figure is not None
    titles = [ax.get_title(loc="left") for ax in figure.axes if ax.lines]
    assert titles == ["loss", "accuracy"]
    raw, mean, *_ = figure.axes[0].lines
    assert len(raw.get_xdata()) == figures.MOST_POINTS
    np.testing.assert_allclose(raw.get_xdata(), raw.get_ydata())  # bins are means of both
    np.testing.assert_allclose(mean.get_ydata()[100:-100], raw.get_ydata()[100:-100], rtol=1e-2)
    assert any(list(line.get_xdata()) == [40, 40] for line in figure.axes[0].lines) is False  # no evaluation loss there
    assert any(list(line.get_xdata()) == [40, 40] for line in figure.axes[1].lines)
    assert figures.curves([], "accuracy") is None


def test_a_new_report_replaces_the_old_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path)
    before = (tmp_path / "report.html").read_bytes()

    def stopped(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", stopped)
    with pytest.raises(RunError, match="No space left"):
        write(tmp_path, doc="another")
    assert (tmp_path / "report.html").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("value", "name", "text"),
    [
        (0.93125, "accuracy", "93.12%"), (1.5236, "loss", "1.524"), (123456.7, "mse", "123,457"), (0.5, "r", "0.5"),
        (math.nan, "accuracy", "nan"), (None, "loss", "none"), (8.8e141, "perplexity", "8.8e+141"),
    ],
)  # fmt: skip
def test_numbers(value: Any, name: str, text: str) -> None:
    assert number(value, Classification().metric_style(name)) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.5, "0.5 s"), (43.21, "43.2 s"), (185, "3 min 5 s"), (4000, "1 h 6 min")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
