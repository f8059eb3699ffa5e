"""Every command, link and package name in README and docs is one that exists."""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

import fdl.main
from fdl.experiment import experiment_names, load_experiment, settings
from fdl.types import UserError

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "tests" / "README.md", *(ROOT / "docs").glob("**/*.md")])
IDS = [str(page.relative_to(ROOT)) for page in PAGES]


def commands(text: str) -> Iterator[list[str]]:
    """The words after every `./launch.sh` and `fdl.main`, in code blocks and in `code`."""
    blocks = re.findall(r"```\w*\n(.*?)```", text, flags=re.S)
    rest = re.sub(r"```\w*\n.*?```", "", text, flags=re.S)
    for line in "\n".join(blocks).replace("\\\n", " ").splitlines() + re.findall(r"`([^`\n]+)`", rest):
        for found in re.finditer(r"(?:\./launch\.sh|-m fdl\.main)(?=\s|$)([^'|&;<>]*)", line):
            try:
                yield shlex.split(found[1], comments=True)
            except ValueError:  # a quote of the shell around it
                yield found[1].split()


def wrong(words: list[str]) -> str:
    """What is wrong with a command's flags: "" where nothing is."""
    flags = fdl.main.FLAGS
    name, paths = "fashion_cnn", []
    for word, value in itertools.zip_longest(words, words[1:], fillvalue=""):
        if word.startswith("--set"):
            paths.append(word.removeprefix("--set=") if "=" in word else value)
        elif word.startswith("--"):
            flag, _, given = word[2:].partition("=")
            if flag not in flags and flag.removeprefix("no") not in flags:
                return f"--{flag} is no flag"
            name = given if flag == "experiment" else name
    if name not in experiment_names():
        return "" if name.endswith(".py") or name.isupper() or "$" in name else f"{name} is no experiment"
    known = {path for path, _ in settings(load_experiment(name))} | {"data"}
    return next((f"{name} has no setting {p}" for p in paths if p.partition("=")[0] not in known), "")


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_command_of_a_page_has_flags_and_settings_that_exist(page: Path) -> None:
    for words in commands(page.read_text()):
        if words[:1] in (["test"], ["check"]) or "FLAGS" in words:
            continue
        try:
            assert not wrong(words), f"{words}: {wrong(words)}"
        except UserError as error:
            pytest.fail(f"{words}: {error}")


def test_a_wrong_command_is_seen() -> None:
    [words] = commands("```\n./launch.sh --experiment=fashion_cnn --set model.dropuot=0.5\n```")
    assert wrong(words) == "fashion_cnn has no setting model.dropuot=0.5"
    [words] = commands("run `python -m fdl.main --sede=1` twice")
    assert wrong(words) == "--sede is no flag"
    assert wrong(["--experiment=nothing"]) == "nothing is no experiment"


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_link_to_a_file_leads_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not target.startswith(("http", "#")):
            path, _, anchor = target.partition("#")
            aim = page.parent / path
            assert aim.exists(), f"{target} does not exist"
            heads = (
                [
                    re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-")
                    for head in re.findall(r"^#+ (.+)$", aim.read_text(), re.M)
                ]
                if anchor
                else []
            )
            assert not anchor or anchor in heads, f"{target}: {path} has no such heading"


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_file_named_in_a_page_exists(page: Path) -> None:
    for name in re.findall(r"\b(?:fdl|tests|benchmarks|experiments)/[\w/]+\.(?:py|json|jsonl)\b", page.read_text()):
        assert (ROOT / name).exists(), f"{name} does not exist"
