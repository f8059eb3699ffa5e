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
from PIL import Image

from fdl.report import report
from fdl.tasks import Panel
from fdl.tasks.panels import figures
from fdl.types import UserError

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
            "eval_examples": 5000, "test_examples": 10000,
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
    wanted: dict[str, Any] = {"config": CONFIG, "summary": summary(), "monitor": "accuracy", "history": HISTORY}
    html = report.write_report(tmp_path, **(wanted | changes)).read_text(encoding="utf-8")
    return Page(html), html


def test_the_page_says_what_was_done(tmp_path: Path) -> None:
    parameters = [
        {"name": "conv1", "kind": "Conv", "shape": (26, 26, 64), "params": 640, "flops": 1000},
        {"name": "output", "kind": "Dense", "shape": (10,), "params": 1290, "flops": None},
    ]
    page, html = write(tmp_path, doc="A small network.\n\n    Source: a paper\n", parameters=parameters)
    for words in (
        "mnist_cnn", "A small network.", "Source: a paper", "complete", "93.12%", "10.00%", "0.2034", "IDX files",
        "55,000 training · 5,000 validation · 10,000 test", "1,200", "3 min 5 s", "4.25 s", "3 MiB", "cpu:0, cpu:1",
        "26x26x64", "1,930",
        "python -m fdl.main --experiment=mnist_cnn", "jax 0.10.2", "f00d", "ab12", "cd34", "2 epochs",
    ):  # fmt: skip
        assert words in page.text, words
    assert "50.00%" not in page.text  # the validation split's figure is not the test's
    assert "Stand-in" not in page.text
    changed = re.findall(r'<tr class="changed">.*?</tr>', html, re.S)
    assert len(changed) == 1
    assert "model.dropout" in changed[0]


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
    data = {"name": EVIL + "-standin", "source": EVIL, "where": EVIL}
    figures_of = {"baselines": {EVIL: {"test/accuracy": 0.1}}, "metrics": {f"test/{EVIL}": 1}}
    said = summary(status=EVIL, data=data, devices=[EVIL], **figures_of)
    page, html = write(
        tmp_path, config=config, summary=said, doc=f"{EVIL}\n{EVIL}", panels=[panel], parameters=[{EVIL: EVIL}]
    )
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
    page, _ = write(tmp_path, summary=summary(data={"name": "mnist-standin", "source": "builtin"}))
    assert "Stand-in data: this run used mnist-standin" in page.text
    page, _ = write(tmp_path, summary=summary(data={"name": "digits", "source": "builtin"}))
    assert "Stand-in" not in page.text


def test_one_bad_panel_does_not_lose_the_others(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Undrawable:
        axes = ()

        def get_figwidth(self) -> float:
            return 1.0

        def savefig(self, *_: Any, **__: Any) -> None:
            raise MemoryError("no room to draw")

    def panel(number: int) -> Panel:
        if number == 1:
            raise ValueError(f"broken {EVIL}")
        return Panel(f"Panel {number}", figure=Undrawable() if number == 2 else None, text="kept")  # type: ignore[arg-type]

    page, html = write(tmp_path, panels=map(panel, range(4)))
    assert page.text.count("kept") == 2
    assert "ValueError: broken <script>" in page.text
    assert "MemoryError: no room to draw" in page.text
    assert "<script" not in html
    assert "Panel 2" in page.text  # whose figure failed has its title still


def test_a_generator_that_fails_and_one_that_never_stops_failing(tmp_path: Path) -> None:
    def some() -> Iterator[Panel]:
        yield Panel("First")
        raise KeyError("gone")

    class Endless:
        def __iter__(self) -> Endless:
            return self

        def __next__(self) -> Panel:
            raise RuntimeError("again")

    page, _ = write(tmp_path, panels=some())
    assert "First" in page.text
    assert "gone" in page.text
    page, _ = write(tmp_path, panels=Endless())
    assert 0 < page.text.count("RuntimeError: again") <= 50


def test_with_almost_nothing_there_is_a_page(tmp_path: Path) -> None:
    page = Page(report.write_report(tmp_path, config={}, summary={}).read_text())
    assert "Nothing was logged" in page.text


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
    with pytest.raises(UserError, match="No space left"):
        write(tmp_path, doc="another")
    assert (tmp_path / "report.html").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("value", "name", "text"),
    [
        (0.93125, "accuracy", "93.12%"), (1.5236, "loss", "1.524"), (123456.7, "mse", "123,457"), (0.5, "r", "0.5"),
        (math.nan, "accuracy", "nan"), (None, "loss", "none"),
    ],
)  # fmt: skip
def test_numbers(value: Any, name: str, text: str) -> None:
    assert report.number(value, name) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.5, "0.5 s"), (43.21, "43.2 s"), (185, "3 min 5 s"), (4000, "1 h 6 min")]
)
def test_durations(seconds: float, text: str) -> None:
    assert report.duration(seconds) == text
