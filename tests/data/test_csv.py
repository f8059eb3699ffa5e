"""Users' tables: one reader for training and predicting, held against Python's csv, NumPy and hand-made files."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fdl.data.facts import Facts
from fdl.data.formats import cells
from fdl.data.formats.bad_inputs import BadInputs
from fdl.data.formats.csv import csv_file
from fdl.data.splits import Request, Splits
from fdl.tasks import tables
from fdl.types import UserError

NAMES = ["rooms", "area", "place", "price"]
ROWS = [
    ["2", "41.5", "harbour", "120.25"], ["3", "", "hill", "180.5"], ["1", "33.25", "harbour", "99.75"],
    ["4", "80.5", "hill", "251.125"], ["2", "55.5", "station", "150.5"], ["5", "120.75", "hill", "310.25"],
]  # fmt: skip


def text_of(names: list[str] | None, rows: list[list[str]], separator: str = ",", end: str = "\n", **how: Any) -> str:
    out = io.StringIO()
    writer = csv.writer(out, delimiter=separator, lineterminator=end, **how)
    writer.writerows([*([names] if names else []), *rows])
    return out.getvalue()


def load(tmp_path: Path, data: str | bytes, name: str = "own.csv", **options: Any) -> Splits:
    (tmp_path / name).write_bytes(data if isinstance(data, bytes) else data.encode())
    return csv_file(Request(data_dir=tmp_path, on_bad=options.pop("on_bad", "stop")), path=name, **options)


def commas(rows: list[list[str]]) -> list[list[str]]:
    return [[cell.replace(".", ",") for cell in row] for row in rows]


def missing(word: str) -> list[list[str]]:
    return [[cell or word for cell in row] for row in ROWS]


PLAIN = text_of(NAMES, ROWS)
SAME = {
    "a byte-order mark and CRLF": (b"\xef\xbb\xbf" + text_of(NAMES, ROWS, end="\r\n").encode(), "a byte-order mark"),
    "CR": (text_of(NAMES, ROWS, end="\r"), ""),
    "all quoted": (text_of(NAMES, ROWS, quoting=csv.QUOTE_ALL), ""),
    "semicolons": (text_of(NAMES, ROWS, ";"), "semicolons"),
    "tabs": (text_of(NAMES, ROWS, "\t"), "tabs"),
    "bars": (text_of(NAMES, ROWS, "|"), "bars"),
    "decimal commas": (text_of(NAMES, commas(ROWS), ";"), "semicolons; decimal commas"),
    "decimal commas, quoted": (text_of(NAMES, commas(ROWS)), "decimal commas"),
    "Excel's first line": ("sep=;\n" + text_of(NAMES, ROWS, ";"), "semicolons"),
    "spaces after commas": (PLAIN.replace(",", ", "), ""),
    "blank lines": (PLAIN.replace("\n", "\n\n") + "\n", ""),
    "a line of commas": (PLAIN + ",,,\n", ""),
    "DOS' end of file": (PLAIN + "\x1a", ""),
    "trailing commas": (PLAIN.replace("\n", ",\n"), "without unnamed 5 (one value)"),
    "NA": (text_of(NAMES, missing("NA")), ""),
    "N/A": (text_of(NAMES, missing("n/a")), ""),
    "NaN": (text_of(NAMES, missing("NaN")), ""),
    "null": (text_of(NAMES, missing("NULL")), ""),
    "?": (text_of(NAMES, missing("?")), ""),
    "pandas' index": (text_of(["", *NAMES], [[str(i), *row] for i, row in enumerate(ROWS)]), "without unnamed 1 (an index)"),
    "an id": (text_of(["id", *NAMES], [[f"x{i * i}", *row] for i, row in enumerate(ROWS)]), "without id (an index)"),
    "a constant": (text_of([*NAMES[:3], "k", "price"], [[*row[:3], "7", row[3]] for row in ROWS]), "without k (one value)"),
}  # fmt: skip


@pytest.mark.parametrize("form", SAME)
def test_every_usual_form_gives_the_same_arrays_and_is_said(tmp_path: Path, form: str) -> None:
    data, says = SAME[form]
    plain, splits = load(tmp_path, PLAIN, target="price"), load(tmp_path, data, target="price")
    assert says in splits.where
    assert splits.facts == plain.facts
    np.testing.assert_array_equal(splits.train["inputs"]["numeric"], plain.train["inputs"]["numeric"])
    np.testing.assert_array_equal(splits.train["inputs"]["category"], plain.train["inputs"]["category"])
    np.testing.assert_array_equal(splits.train["targets"], plain.train["targets"])


def test_the_plain_form_is_what_is_written_there(tmp_path: Path) -> None:
    splits = load(tmp_path, PLAIN)
    assert (splits.name, splits.source, splits.test) == ("own", "files", None)
    assert splits.facts == Facts(
        numeric=("rooms", "area"), categories={"place": ("harbour", "hill", "station", "(other)")}, target="price"
    )
    expected = np.array([[float(row[0]), float(row[1] or "nan")] for row in ROWS], np.float32)
    np.testing.assert_array_equal(splits.train["inputs"]["numeric"], expected)
    assert splits.train["inputs"]["category"].tolist() == [[0], [1], [0], [1], [2], [1]]
    np.testing.assert_array_equal(splits.train["targets"], np.array([row[3] for row in ROWS], np.float32))


@pytest.mark.parametrize("form", SAME)
def test_a_prediction_reads_a_file_as_training_did(tmp_path: Path, form: str) -> None:
    splits = load(tmp_path, SAME[form][0], target="price")
    given = tables.read_rows(str(tmp_path / "own.csv"), Facts.from_json(splits.facts.to_json()))
    for name, column in splits.train["inputs"].items():
        np.testing.assert_array_equal(given.rows["inputs"][name], column)
        assert given.rows["inputs"][name].dtype == column.dtype


def test_random_tables_are_read_as_pythons_csv_and_float_read_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    texts = ["a", "b,c", 'say "x"', "d;e", " f ", "naïve", "漢字"]
    for trial in range(40):
        separator = ",;\t"[trial % 3]
        rows = [
            [f"{rng.normal() * 10.0 ** rng.integers(-8, 8):.{rng.integers(1, 9)}{'ef'[rng.integers(2)]}}", texts[rng.integers(7)],
             f"{rng.normal():.3f}"]
            for _ in range(rng.integers(10, 40))
        ]  # fmt: skip
        data = text_of(["x", "kind", "y"], rows, separator, quoting=(csv.QUOTE_MINIMAL, csv.QUOTE_ALL)[trial % 2])
        read = list(csv.reader(io.StringIO(data), delimiter=separator))[1:]
        splits = load(tmp_path, data, target="y")
        np.testing.assert_array_equal(
            splits.train["inputs"]["numeric"][:, 0], np.float32([float(row[0]) for row in read])
        )
        names = splits.facts.categories["kind"]
        assert [names[code] for code in splits.train["inputs"]["category"][:, 0]] == [row[1].strip() for row in read]
        np.testing.assert_array_equal(splits.train["targets"], np.float32([float(row[2]) for row in read]))


def test_a_long_table_is_read_as_numpy_reads_it(tmp_path: Path) -> None:
    """More rows than are converted at once, a quote and a missing cell in the last block only."""
    values = np.random.default_rng(1).normal(size=(70_000, 2)).round(4)
    lines = [f"{a},{b}" for a, b in values]
    lines[69_000] = f',"{values[69_000, 1]}"'
    splits = load(tmp_path, "\n".join(["a,b", *lines]))
    expected = values[:, 0].astype(np.float32)
    expected[69_000] = np.nan
    np.testing.assert_array_equal(splits.train["inputs"]["numeric"][:, 0], expected)
    np.testing.assert_array_equal(splits.train["targets"], values[:, 1].astype(np.float32))


@pytest.mark.parametrize("cell", ["1", "-1.5", "+2", "1e3", "1E-3", ".5", "3.", " 4 ", "-0", "1e18", "007"])
def test_numbers_are_numbers(cell: str) -> None:
    held = cells.parse(f"a,b\n{cell},1\n".encode(), "t", header="yes")
    values, wrong = held.numbers("a")
    assert (values[0], wrong[0]) == (float(cell), False)


@pytest.mark.parametrize(
    "cell",
    [
        "x",
        "inf",
        "-Infinity",
        "1e19",
        "1e39",
        "1e999",
        "1_000",
        "0x1",
        "١",
        "$3",
        "=1+1",
        "--1",
        "1e",
        "e5",
        "1 2",
        "None",
    ],
)
def test_what_is_no_number_is_refused_by_line_and_column(tmp_path: Path, cell: str) -> None:
    rows = [row.copy() for row in ROWS]
    rows[2][1] = rows[4][1] = cell
    with pytest.raises(BadInputs, match=r"own\.csv, line 4, column area: '.*first of 2 bad rows of 6") as caught:
        load(tmp_path, text_of(NAMES, rows))
    assert [row.place for row in caught.value.rows] == ["line 4, column area", "line 6, column area"]
    assert "\n" not in str(caught.value)
    splits = load(tmp_path, text_of(NAMES, rows), on_bad="skip")
    assert len(splits.skipped) == 2
    np.testing.assert_array_equal(splits.train["targets"], np.float32([120.25, 180.5, 251.125, 310.25]))
    with pytest.raises(UserError, match=r"line 4, column area: '.*first of 2 bad rows"):
        tables.read_rows(str(tmp_path / "own.csv"), splits.facts)


@pytest.mark.parametrize("cell", ["{},100", "${}", "{} %", "{} 000", "1,{},000.5", "€ {}.5"])
def test_numbers_written_for_people_are_refused_and_not_taken_for_categories(tmp_path: Path, cell: str) -> None:
    rows = [["2", cell.format(100 + i), f"{i}.5"] for i in range(1, 6)]
    with pytest.raises(
        UserError, match=r"line 2, column area: .* is no number; write it without separators of thousands"
    ):
        load(tmp_path, text_of(["n", "area", "price"], rows))
    with pytest.raises(
        UserError, match=r"line 2, column area: .* is no number; write it without separators of thousands"
    ):
        load(tmp_path, text_of(["n", "area", "price"], rows), target="area")
    assert (
        load(tmp_path, text_of(["n", "area", "price"], rows), categorical=("area",)).facts.categories["area"][-1]
        == "(other)"
    )


def test_a_comma_after_four_digits_is_a_decimal_comma(tmp_path: Path) -> None:
    splits = load(
        tmp_path, text_of(["n", "area", "price"], [[str(i), f"{1000 + i},{100 + i}", f"{i},5"] for i in range(5)])
    )
    np.testing.assert_allclose(splits.train["inputs"]["numeric"][:, 1], [1000 + i + (100 + i) / 1000 for i in range(5)])


def test_a_table_without_a_header(tmp_path: Path) -> None:
    splits = load(tmp_path, text_of(None, ROWS))
    assert "no header" in splits.where
    assert splits.facts.numeric == ("column 1", "column 2")
    assert len(splits.train["targets"]) == 6
    for rows in (ROWS, [row[:3] for row in ROWS]):
        (tmp_path / "new.csv").write_text(text_of(None, rows))
        given = tables.read_rows(str(tmp_path / "new.csv"), splits.facts)
        np.testing.assert_array_equal(given.rows["inputs"]["numeric"], splits.train["inputs"]["numeric"])
        assert tables.predictions_csv(given, {"prediction": list("abcdef")}).splitlines()[0] == ",".join(
            [*rows[0], "a"]
        )
    (tmp_path / "new.csv").write_text("1,2\n")
    with pytest.raises(UserError, match="give 3 or 4 columns"):
        tables.read_rows(str(tmp_path / "new.csv"), splits.facts)
    first = load(tmp_path, text_of(None, ROWS), target="column 1")
    (tmp_path / "new.csv").write_text(text_of(None, [row[1:] for row in ROWS]))
    given = tables.read_rows(str(tmp_path / "new.csv"), first.facts)
    np.testing.assert_array_equal(given.rows["inputs"]["numeric"], first.train["inputs"]["numeric"])


def test_a_header_of_numbers_must_be_said(tmp_path: Path) -> None:
    data = text_of(["2019", "2020"], [[str(i), str(i * 1.5)] for i in range(30)])
    assert len(load(tmp_path, data).train["targets"]) == 31
    splits = load(tmp_path, data, header="yes")
    assert (len(splits.train["targets"]), splits.facts.target) == (30, "2020")


def labelled(labels: list[str], **options: Any) -> tuple[str, dict]:
    return text_of(["x", "y"], [[f"{i}.5", label] for i, label in enumerate(labels)]), options


@pytest.mark.parametrize(
    ("labels", "options", "classes", "targets"),
    [
        (["no", "yes", "no", " yes"], {}, ("no", "yes"), [0, 1, 0, 1]),
        (["1", "0", "0", "1.0"], {}, ("0", "1"), [1, 0, 0, 1]),
        (["2", "10", "2", "3"], {"kind": "classification"}, ("2", "3", "10"), [0, 2, 0, 1]),
        (["1.5", "2.5", "1.5", "2.5"], {}, (), [1.5, 2.5, 1.5, 2.5]),
        (["3", "1", "2", "4"], {}, (), [3, 1, 2, 4]),
        (["1", "2"] * 4, {"kind": "regression"}, (), [1, 2] * 4),
    ],
)
def test_what_the_target_is(tmp_path: Path, labels: list[str], options: dict, classes: tuple, targets: list) -> None:
    data, options = labelled(labels, **options)
    splits = load(tmp_path, data, **options)
    assert splits.facts.classes == classes
    assert splits.train["targets"].tolist() == targets
    assert splits.train["targets"].dtype == (np.int32 if classes else np.float32)


def test_few_whole_numbers_may_be_either_and_the_user_is_asked(tmp_path: Path) -> None:
    data, _ = labelled([str(i % 3) for i in range(15)])
    with pytest.raises(UserError, match=r"3 different whole numbers.*kind=classification or kind=regression"):
        load(tmp_path, data)
    assert load(tmp_path, data, kind="classification").facts.classes == ("0", "1", "2")
    assert load(tmp_path, data, kind="regression").facts.classes == ()


@pytest.mark.parametrize(
    ("labels", "options", "says"),
    [
        ([f"name {i}" for i in range(50)], {}, "50 different values in 50 rows: no classes"),
        (["same"] * 9, {}, "1 different values in 9 rows"),
        (["7"] * 9, {"kind": "regression"}, "1 different numbers: nothing to predict"),
        (["a", "b"] * 9, {"kind": "regression"}, "0 different numbers"),
        (["a", "b", "a", ""], {}, "line 5, column y: '': it is the target and cannot be missing"),
        (["1.5", "?", "2.5", "3"], {}, r"line 3, column y: '\?': it is the target"),
        (["1.5", "2.5", "3", "x"], {}, "line 5, column y: 'x' is no number"),
    ],
)
def test_a_target_from_which_nothing_can_be_learnt(tmp_path: Path, labels: list[str], options: dict, says: str) -> None:
    data, options = labelled(labels, **options)
    with pytest.raises(UserError, match=says):
        load(tmp_path, data, **options)


def test_the_target_is_the_named_column_or_the_last(tmp_path: Path) -> None:
    data = text_of(["x", "Target", "z"], [[f"{i}.5", f"{i}.25", f"{i}.75"] for i in range(9)])
    assert load(tmp_path, data).facts.target == "Target"
    assert "predicts Target" in load(tmp_path, data).where
    assert load(tmp_path, data.replace("Target", "w")).facts.target == "z"
    with pytest.raises(UserError, match="no column 'targt'; the nearest is 'Target', and there are x, Target, z"):
        load(tmp_path, data, target="targt")


def test_columns_that_say_nothing_are_left_out_unless_they_are_named(tmp_path: Path) -> None:
    names = ["user_id", "valid", "comment", "empty", "y"]
    rows = [[str(10 * i), str(i % 7), f"text {i}", "", f"{i}.5"] for i in range(60)]
    splits = load(tmp_path, text_of(names, rows))
    assert splits.facts.numeric == ("valid",)
    assert (
        "without user_id (an index); without comment (60 different texts in 60 rows); without empty (one value)"
        in splits.where
    )
    splits = load(
        tmp_path, text_of(names, rows), numeric=("user_id",), categorical=("valid", "comment"), ignore=("empty",)
    )
    assert splits.facts.numeric == ("user_id",)
    assert [len(known) for known in splits.facts.categories.values()] == [8, 61]
    assert "without" not in splits.where
    with pytest.raises(UserError, match="no column is left to predict 'y' from; user_id: an index"):
        load(tmp_path, text_of(["user_id", "y"], [[row[0], row[4]] for row in rows]))


def test_a_file_of_test_rows(tmp_path: Path) -> None:
    (tmp_path / "test.csv").write_text(text_of(NAMES[::-1], [["1.5", "moon", "2", "3"], ["2.5", "", "4", "5"]]))
    splits = load(tmp_path, PLAIN, test="test.csv")
    assert splits.test is not None
    assert splits.test["inputs"]["category"].tolist() == [[3], [3]]  # "(other)": not in training, and missing
    assert splits.test["inputs"]["numeric"].tolist() == [[3, 2], [5, 4]]
    (tmp_path / "test.csv").write_text(text_of(NAMES[:3], [row[:3] for row in ROWS]))
    with pytest.raises(UserError, match=r"test\.csv: column 'price' is missing"):
        load(tmp_path, PLAIN, test="test.csv")


def test_a_missing_category_is_one_of_its_own_where_training_has_one(tmp_path: Path) -> None:
    rows = [[f"{i}", ("a", "b", "", "NA", "?")[i % 5], f"{i}.5"] for i in range(10)]
    splits = load(tmp_path, text_of(["x", "kind", "y"], rows))
    assert splits.facts.categories["kind"] == ("(missing)", "a", "b", "(other)")
    assert splits.train["inputs"]["category"][:5, 0].tolist() == [1, 2, 0, 0, 0]


def test_further_spellings_of_a_missing_value_hold_in_prediction_too(tmp_path: Path) -> None:
    splits = load(tmp_path, text_of(NAMES, missing("-999")), missing=("-999", "Unknown"))
    assert np.isnan(splits.train["inputs"]["numeric"]).sum() == 1
    (tmp_path / "new.csv").write_text(text_of(NAMES[:3], [["-999", "unknown", "hill"]]))
    given = tables.read_rows(str(tmp_path / "new.csv"), Facts.from_json(splits.facts.to_json()))
    assert np.isnan(given.rows["inputs"]["numeric"]).all()


def test_a_column_of_texts_is_left_to_a_tokeniser(tmp_path: Path) -> None:
    rows = [["Good, really!", "pos", "1"], ["bad", "neg", "2"], [' "so so" ', "neg", "3"]]
    splits = load(tmp_path, text_of(["review", "mood", "n"], rows), text="review", target="mood")
    assert splits.train["inputs"].dtype == object
    assert splits.train["inputs"].tolist() == [row[0] for row in rows]
    assert splits.train["targets"].tolist() == [1, 0, 0]
    given = tables.read_rows(str(tmp_path / "own.csv"), splits.facts)
    assert given.rows["inputs"].tolist() == [row[0] for row in rows]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ("a,a\n1,2\n", "named twice"),
        ("# exported\na,b\n1,2\n2,3\n", "first line has 1 cells and no other line has as many .2 are usual"),
        ("a,b\n1,2,\n3,4,\n", "no line may end in a separator"),
        ("a,b\n1.5,2.5\n1,2,3\n4,5\n", "line 3: 3 cells, the header has 2"),
        ("a,b\n1,2\n", "no column is left to predict 'b' from; a: one value"),
        ("\n\n", "is empty"),
    ],
)
def test_what_is_no_table(tmp_path: Path, data: str, says: str) -> None:
    with pytest.raises(UserError, match=says) as caught:
        load(tmp_path, data, target="b" if "a,b" in data else "")
    assert "own.csv" in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no file 'none.csv'"):
        csv_file(Request(data_dir=tmp_path), path="none.csv")


def test_class_columns_are_named_and_in_order() -> None:
    found = tables.class_columns(np.array([[0.2, 0.5, 0.3], [0.4, 0.4, 0.2]]), ("a", "b", "c"), top=2)
    assert found == {
        "class_1": ["b", "a"], "confidence_1": ["0.500000", "0.400000"], "class_2": ["c", "b"],
        "confidence_2": ["0.300000", "0.400000"],
    }  # fmt: skip


def test_a_linear_baseline_is_for_tables_of_bounded_width() -> None:
    rng = np.random.default_rng(0)
    table = {"numeric": rng.normal(size=(20, 3)), "category": rng.integers(0, 4, (20, 2))}
    features = tables.linear_features(table, table)
    assert features is not None
    assert features.shape == (20, 1 + 3 + sum(len(np.unique(column)) for column in table["category"].T))
    constant = {"numeric": np.full((1000, 1), 0.1)}
    features = tables.linear_features(constant, {"numeric": np.array([[0.2]])})
    assert features is not None
    assert abs(features[0, 1]) < 1
    wide, pictures = rng.normal(size=(5, tables.MOST_FEATURES)), np.zeros((5, 8, 8, 3), np.uint8)
    for inputs in (wide, pictures, {"left": table["numeric"], "right": table["numeric"]}, np.array(["a", "b"], object)):
        assert tables.linear_features(inputs, inputs) is None


@pytest.mark.parametrize(
    ("name", "options", "rows", "numeric", "kinds"),
    [
        ("auto-mpg.csv", {"target": "mpg"}, 398, 6, {"origin": 4}),
        ("boston-housing.csv", {}, 506, 13, {}),
        ("auto-insurance.csv", {}, 63, 1, {}),
        ("california-housing.csv", {"target": "median_house_value"}, 20_640, 8, {"ocean_proximity": 6}),
    ],
)
def test_real_tables(data_dir: Path, name: str, options: dict, rows: int, numeric: int, kinds: dict) -> None:
    splits = csv_file(Request(data_dir=data_dir), path=f"tabular/{name}", **options)
    assert splits.train["inputs"]["numeric"].shape == (rows, numeric)
    assert {column: len(known) for column, known in splits.facts.categories.items()} == kinds
    assert np.isfinite(splits.train["targets"]).all()
