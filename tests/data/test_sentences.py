"""Labelled sentences and pairs of texts: the published counts, folds, what is never pooled, bad files."""

from __future__ import annotations

import datetime
import gzip
from pathlib import Path

import numpy as np
import pytest

from fdl.data import Data, Request, pipeline, sources
from fdl.data.class_ops import NaiveBayesRatios
from fdl.data.encoders import Vocabulary
from fdl.data.pairs import SPECIAL, CutPairs, Pairs, codec
from fdl.data.standins import dates
from fdl.types import UserError


def test_the_treebank_has_its_published_counts(data_dir: Path) -> None:
    for fine, counts in ((False, (6920, 872, 1821)), (True, (8544, 1101, 2210))):
        splits = sources.sst(Request(data_dir=data_dir, offline=True), fine=fine)
        assert splits.validation is not None
        assert splits.test is not None
        assert tuple(len(part["targets"]) for part in (splits.train, splits.validation, splits.test)) == counts
        assert set(splits.train["targets"]) == set(range(len(splits.classes)))
        assert not any(text[:1].isdigit() and text[1:2] == " " for text in splits.train["inputs"][:100])


def test_sst_and_rt_polarity_are_never_pooled(data_dir: Path) -> None:
    """1,425 test sentences of the one are sentences of the other: every source reads its own folder alone."""
    request = Request(data_dir=data_dir, offline=True)
    treebank, polarity = sources.sst(request), sources.rt_polarity(request)
    assert treebank.test is not None
    assert polarity.test is not None

    def letters(texts: np.ndarray) -> list[str]:
        return ["".join(filter(str.isalnum, text.lower())) for text in texts]

    pooled = set(letters(polarity.train["inputs"])) | set(letters(polarity.test["inputs"]))
    assert sum(text in pooled for text in letters(treebank.test["inputs"])) >= 1425
    own = {"sst": "sst", "rt_polarity": "rt-polarity"}
    for splits, folder in ((treebank, own["sst"]), (polarity, own["rt_polarity"])):
        held = {line.strip() for path in (data_dir / folder).iterdir() if path.suffix not in (".txt", ".md")
                for line in path.read_text().splitlines()}  # fmt: skip
        for part in (splits.train, splits.test):
            assert part is not None
            texts = part["inputs"].tolist()
            labels = part["targets"].tolist()
            assert all(text in held or f"{label} {text}" in held for text, label in zip(texts, labels, strict=True))


def test_the_ten_folds_part_the_sentences(tmp_path: Path) -> None:
    (tmp_path / "rt-polarity").mkdir()
    for end in ("neg", "pos"):
        (tmp_path / f"rt-polarity/rt-polarity.{end}").write_text("".join(f"{end} {i}\r\n\r\n" for i in range(53)))
    request = Request(data_dir=tmp_path, offline=True)
    seen: list[str] = []
    for fold in range(10):
        splits = sources.rt_polarity(request, fold=fold)
        assert splits.test is not None
        seen += splits.test["inputs"].tolist()
        assert sorted([*splits.test["inputs"], *splits.train["inputs"]]) == sorted(
            f"{end} {i}" for end in ("neg", "pos") for i in range(53)
        )
        assert all((text[:3] == "pos") == label for text, label in zip(*splits.test.values(), strict=True))
    assert len(seen) == len(set(seen)) == 106


def test_bad_sentence_files_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "sst").mkdir()
    for part in ("train", "dev", "test"):
        (tmp_path / f"sst/stsa.binary.{part}").write_text("1 good\n0 bad\n")
    request = Request(data_dir=tmp_path, offline=True)
    assert len(sources.sst(request).train["targets"]) == 2
    (tmp_path / "sst/stsa.binary.dev").write_text("1 good\n\n2 worse\n")
    with pytest.raises(UserError, match=r"stsa\.binary\.dev: line 2 is no label from 0 to 1"):
        sources.sst(request)
    (tmp_path / "sst/stsa.binary.dev").write_bytes("1 gut\n".encode("utf-16"))
    with pytest.raises(UserError, match="UTF-16"):
        sources.sst(request)
    (tmp_path / "sst/stsa.binary.dev").write_bytes(b"1 caf\xe9\n")
    with pytest.raises(UserError, match="is not UTF-8 text"):
        sources.sst(request)
    (tmp_path / "sst/stsa.binary.dev").unlink()
    with pytest.raises(UserError, match=r"not both of \.dev and \.test"):
        sources.sst(request)


def test_reviews_in_the_publisher_s_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "none"))
    for part in ("train", "test"):
        for label in ("pos", "neg", "unsup"):
            (tmp_path / "aclImdb" / part / label).mkdir(parents=True)
            (tmp_path / "aclImdb" / part / label / "0_9.txt").write_text(f"{part} {label}<br />", encoding="utf-8-sig")
    splits = sources.imdb(Request(data_dir=tmp_path, offline=True))
    assert splits.test is not None
    assert splits.classes == ("neg", "pos")
    assert splits.test["inputs"].tolist() == ["test neg<br />", "test pos<br />"]
    assert sources.imdb(Request(data_dir=tmp_path / "empty", offline=True)).standin


def test_n_grams_are_counted_once_and_hashed_by_their_words() -> None:
    op = Vocabulary(length=4, ngrams=2, level="space", buckets=1 << 20)
    state = op.fit({"inputs": np.array(["a b a b"])})
    rows = op.encode({"inputs": np.array(["a b a b", "x A  b", ""])}, state)["inputs"]["ngrams"]
    a, b, ab, ba = rows[0, 0], rows[0, 1], rows[0, 4], rows[0, 5]
    assert rows[0].tolist() == [a, b, 0, 0, ab, ba, 0, 0]
    assert len({0, a, b, ab, ba}) == 5
    assert rows[1].tolist()[1:3] == [a, b]
    assert rows[1, 5] == ab
    assert not rows[2].any()


def test_words_that_differ_share_their_pieces() -> None:
    op = Vocabulary(length=3, pieces=(3, 4), level="space")
    rows = op.encode({"inputs": np.array(["film", "filmed films", "o"])}, op.fit({"inputs": np.array(["film"])}))
    found = [set(row[row > 0].tolist()) for row in rows["inputs"]["ngrams"]]
    assert [len(held) for held in found] == [7, 15, 1]  # " fi fil ilm lm " and " fil film ilm "; ...; " o "
    assert len(found[0] & found[1]) == 5
    assert rows["inputs"]["ngrams"].shape == (3, 3 * 16)


def test_naive_bayes_ratios_are_counts_and_training_texts_are_left_out_of_their_own() -> None:
    rng = np.random.default_rng(0)
    ngrams = np.array([rng.choice(np.arange(1, 9), 3, replace=False) for _ in range(12)]).astype(np.int32)
    ngrams[3, 2] = 0
    targets = rng.integers(0, 3, 12).astype(np.int32)
    rows = {"inputs": {"ngrams": ngrams}, "targets": targets}
    op = NaiveBayesRatios(smoothing=0.5)
    statistics = op.fit(rows)
    plain = op.transform(rows, None, statistics)["inputs"]["ratios"]
    left_out = op.transform(rows, lambda shape: np.zeros((12, *shape)), statistics)["inputs"]["ratios"]
    seen = len(set(ngrams.ravel()) - {0})

    def ratio(gram: int, label: int, without: int | None) -> float:
        total = [sum((row > 0).sum() for row, k in zip(ngrams, targets, strict=True) if (k == label) == own) for own in
                 (True, False)]  # fmt: skip
        counts = [sum(gram in row for i, (row, k) in enumerate(zip(ngrams, targets, strict=True))
                      if (k == label) == own and i != without) for own in (True, False)]  # fmt: skip
        one, other = ((0.5 + count) / (0.5 * seen + size) for count, size in zip(counts, total, strict=True))
        return float(np.log(one) - np.log(other))

    for row in range(12):
        for place in range(3):
            gram = int(ngrams[row, place])
            for label in range(3):
                wanted = (ratio(gram, label, None), ratio(gram, label, row)) if gram else (0, 0)
                assert plain[row, place, label] == pytest.approx(wanted[0], abs=1e-5)
                assert left_out[row, place, label] == pytest.approx(wanted[1], abs=1e-5)
    unseen = op.transform({"inputs": {"ngrams": np.array([[10**6]])}}, None, statistics)["inputs"]["ratios"]
    np.testing.assert_allclose(unseen[0, 0], [ratio(10**6, label, None) for label in range(3)], atol=1e-5)
    again = {**rows, "inputs": {"ngrams": ngrams, "ratios": left_out}}
    assert op.transform(again, None, statistics)["inputs"]["ratios"] is left_out


def test_every_written_date_is_its_iso_date_and_in_one_split_alone() -> None:
    splits = sources.dates(Request(), count=3000)
    assert splits.validation is not None
    assert splits.test is not None
    parts = [splits.train, splits.validation, splits.test]
    assert [len(part["inputs"]) for part in parts] == [3000, 1000, 1000]
    texts = [text for part in parts for text in part["inputs"]]
    assert len(set(texts)) == len(texts) == 5000
    assert max(map(len, texts)) <= 36
    for part in parts:
        for text, iso in zip(part["inputs"], part["targets"], strict=True):
            date = datetime.date.fromisoformat(iso)
            assert text in {dates.written(date, form) for form in range(dates.FORMS)}
    assert dates.written(datetime.date(2023, 9, 5), 4) == "tuesday, september 5, 2023"
    assert len({dates.written(datetime.date(2023, 9, 5), form) for form in range(dates.FORMS)}) == dates.FORMS


def write_pairs(folder: Path, lines: dict[str, list[str]]) -> None:
    (folder / "multi30k").mkdir(exist_ok=True)
    for name, texts in lines.items():
        (folder / "multi30k" / f"{name}.gz").write_bytes(gzip.compress("".join(f"{t}\n" for t in texts).encode()))


def test_aligned_lines_stay_aligned(tmp_path: Path) -> None:
    held = {"train": 6, "val": 2, "test_2016_flickr": 3}
    lines = {f"{part}.{language}": [f"{language} {i}\u2028x" for i in range(count)] for part, count in held.items() for
             language in ("en", "de")}  # fmt: skip
    write_pairs(tmp_path, lines)
    request = Request(data_dir=tmp_path, offline=True)
    splits = sources.multi30k(request, source_language="de", target_language="en")
    assert splits.test is not None
    assert splits.test["inputs"].tolist() == [f"de {i}\u2028x" for i in range(3)]
    assert splits.test["targets"].tolist() == [f"en {i}\u2028x" for i in range(3)]
    write_pairs(tmp_path, {"val.de": ["one"]})
    with pytest.raises(UserError, match=r"val\.en has 2 lines and val\.de 1"):
        sources.multi30k(request)
    (tmp_path / "multi30k/val.de.gz").write_bytes(b"no archive")
    with pytest.raises(UserError, match=r"val\.de\.gz cannot be read"):
        sources.multi30k(request)
    with pytest.raises(UserError, match="both 'de'"):
        sources.multi30k(request, source_language="de")


@pytest.mark.parametrize("level", ["character", "subword"])
def test_pairs_become_numbers_of_the_training_rows_vocabulary_and_texts_again(level: str) -> None:
    pytest.importorskip("tokenizers")
    request = Request()
    data = Data(load=lambda request: sources.dates(request, count=300), encode=(Pairs(level=level, size=330),))  # type: ignore[arg-type]
    prepared = pipeline.load(data, request)
    splits, known = prepared.splits, codec(prepared.splits.facts)
    assert splits.facts.vocabulary[:4] == SPECIAL
    assert splits.test is not None
    raw = sources.dates(request, count=300)
    assert raw.test is not None
    for row, (source, target) in enumerate(zip(raw.test["inputs"][:50], raw.test["targets"][:50], strict=True)):
        tokens = splits.test["targets"][row]
        end = tokens.tolist().index(3)
        assert known.decode(tokens[:end].tolist()) == target
        assert splits.test["mask"][row].sum() == end + 1
        assert known.decode(splits.test["inputs"]["tokens"][row].tolist()) == source
    other = prepared.encode({"inputs": np.array(["Žluťoučký", ""])})["inputs"]
    assert other["mask"].sum(1)[1] == 0
    if level == "subword":  # bytes: nothing is unknown
        size = int(other["mask"].sum(1)[0])
        assert known.decode(other["tokens"][0, :size].tolist()) == "Žluťoučký"
    else:
        assert (other["tokens"][0, :9] == 1).any()


def test_pairs_are_cut_in_training_alone() -> None:
    op = Pairs(level="character", source_length=8, target_length=6)
    rows = {"inputs": np.array(["abcdefghij", "a"]), "targets": np.array(["abcdefgh", "b"])}
    encoded = op.encode(rows, op.fit(rows))
    assert encoded["inputs"]["mask"].sum(1).tolist() == [8, 1]
    assert (encoded["targets"] == 3).sum(1).tolist() == [0, 1]
    cut = CutPairs(length=3).transform(encoded, None, {})
    assert cut["targets"].shape == cut["mask"].shape == cut["inputs"]["tokens"].shape == (2, 3)
