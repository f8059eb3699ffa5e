"""Articles with extractive summaries: BBC News, and the sentences of any text."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from fdl.data.formats.bad_inputs import Bad, settle
from fdl.data.formats.forms import at_roots, choose, first
from fdl.data.splits import Request, Splits
from fdl.data.standins import reports
from fdl.types import Arrays, UserError

_SENTENCE = re.compile(r"""(?<=[.!?])["')]?\s+(?=["'(\[]*[A-Z0-9£$])""")
_ABBREVIATION = re.compile(r"\b(?:Mr|Mrs|Ms|Dr|Prof|St|Sir|Lt|Gen|Rev|No|vs|[A-Z])\.$")


def sentences(text: str) -> list[str]:
    """Split a text into sentences: at the ends of lines, and after . ! ? where a capital letter, a digit or a quote follows."""
    found: list[str] = []
    for line in filter(None, map(str.strip, text.splitlines())):
        begin = 0
        for match in _SENTENCE.finditer(line):
            quoted = len(match[0]) - len(match[0].lstrip("\"')"))
            if not _ABBREVIATION.search(line[begin : match.start()]):
                found.append(line[begin : match.start() + quoted].strip())
                begin = match.end()
        found.append(line[begin:].strip())
    return [sentence for sentence in found if sentence]


def bbc_summaries(request: Request) -> Splits:
    """Load the BBC News Summary set (articles of Greene and Cunningham 2006): English news with extractive summaries.

    Rows: "inputs" articles, "targets" summaries, both texts, for `fdl.data.sentence_ops.Sentences`. A tenth of the articles is
    for testing and a tenth for validation, by the digest of their text: however the file is ordered or cut.

    Raises:
        BadInputs: lines that are no article with its summary, and `request.on_bad` is "stop".
        UserError: the form asked for is not there.
    """

    def splits_of(source: str, where: str, pairs: list[tuple[str, str]], standin: bool = False, **more: Any) -> Splits:
        digests = [hashlib.sha256("".join(article.split()).encode()).digest()[0] % 10 for article, _ in pairs]

        def part(*wanted: int) -> Arrays:
            chosen = [pair for pair, digest in zip(pairs, digests, strict=True) if digest in wanted]
            return {
                name: np.array([pair[place] for pair in chosen], object)
                for place, name in enumerate(("inputs", "targets"))
            }

        name = "bbc_summaries" + "-standin" * standin
        return Splits(name, source, where, part(*range(2, 10)), part(0), part(1), standin=standin, **more)

    def from_files(root: Path) -> Splits | None:
        path = first(root, "bbc-summaries/bbc.jsonl", "bbc_summaries/bbc.jsonl")
        if path is None:
            return None
        pairs, bad = _read(path)
        skipped = settle(bad, len(pairs) + len(bad), "articles", request.on_bad)
        return splits_of("files", str(path), pairs, skipped=skipped)

    def made() -> Splits:
        where = f"a stand-in, not the BBC's articles: drawn by {reports.__name__}, seed {reports.SEED}"
        return splits_of("builtin", where, reports.articles(), standin=True)

    return choose("bbc_summaries", request, [*at_roots(request, from_files), ("builtin", made)])


def _read(path: Path) -> tuple[list[tuple[str, str]], list[Bad]]:
    """Return ((article, summary) of each good line, the others)."""
    pairs, bad = [], []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as UTF-8 text: {error}; get the data set again") from error
    for number, line in enumerate(lines, 1):
        try:
            held = json.loads(line)
            article, summary = held["article"], held["summary"]
            if not (isinstance(article, str) and isinstance(summary, str) and article.strip() and summary.strip()):
                raise ValueError
            pairs.append((article, summary))
        except (ValueError, KeyError, TypeError):
            bad.append(
                Bad(str(path), f"line {number}", 'is no JSON object with texts "article" and "summary"; correct it')
            )
    if not pairs:
        raise UserError(f"{path} holds no article with a summary: get the data set again")
    return pairs, bad
