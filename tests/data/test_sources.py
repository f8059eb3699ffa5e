"""The sources: every form read right, every damage refused by name, the network never waited for."""

from __future__ import annotations

import contextlib
import gzip
import http.server
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fdl.data import sources
from fdl.data.digests import sha256_of
from fdl.data.formats import california, download, idx, images, tfds
from fdl.data.splits import Request, Splits
from fdl.types import UserError


def digest_of(splits: Splits) -> str:
    return sha256_of(splits.train, splits.test, splits.validation)


@pytest.fixture(autouse=True)
def _own_tfds_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tensorflow_datasets"))
    for name in (
        "http_proxy",
        "https_proxy",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "all_proxy",
        "ALL_PROXY",
        "no_proxy",
        "NO_PROXY",
    ):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Whatever is looked up fails and is noted."""
    asked: list[str] = []

    def refuse(host: str, *_: object, **__: object) -> None:
        asked.append(host)
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    return asked


def idx_bytes(array: np.ndarray) -> bytes:
    return (
        bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.astype(np.uint8).tobytes()
    )


@pytest.fixture
def fashion(tmp_path: Path) -> Path:
    """A data folder with a small Fashion-MNIST: 30 + 10 images of 28 x 28."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "data" / "fashion-mnist"
    folder.mkdir(parents=True)
    for split, count in (("train", 30), ("t10k", 10)):
        pictures, labels = rng.integers(0, 256, (count, 28, 28)), np.arange(count) % 10
        (folder / f"{split}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx_bytes(pictures)))
        (folder / f"{split}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx_bytes(labels)))
    return folder.parent


@pytest.mark.parametrize("name", ["fashion-mnist", "fashion_mnist"])
@pytest.mark.parametrize("zipped", [True, False])
def test_idx_files_in_both_spellings_zipped_or_not(fashion: Path, name: str, zipped: bool) -> None:
    (fashion / "fashion-mnist").rename(fashion / name)
    expected = np.random.default_rng(0).integers(0, 256, (30, 28, 28))
    if not zipped:
        for path in (fashion / name).iterdir():
            path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
            path.unlink()
    splits = sources.fashion_mnist(Request(data_dir=fashion))
    assert (splits.name, splits.source) == ("fashion_mnist", "files")
    assert name in splits.where
    np.testing.assert_array_equal(splits.train["inputs"][..., 0], expected)
    np.testing.assert_array_equal(splits.train["targets"], np.arange(30) % 10)
    assert splits.train["inputs"].dtype == np.uint8
    assert splits.train["targets"].dtype == np.int32
    assert splits.test["inputs"].shape == (10, 28, 28, 1)


IMAGES, LABELS = "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"
DAMAGES: dict[str, tuple[str, Callable[[bytes], bytes], str]] = {
    "cut short": (IMAGES, lambda data: data[:-200], "damaged"),
    "empty": (IMAGES, lambda data: b"", "is empty (0 bytes), not an IDX file"),
    "no gzip": (IMAGES, lambda data: b"\0\0\x08\3", "no gzip file (it starts with 00 00 08 03)"),
    "checksum": (LABELS, lambda data: data[:-8] + bytes([data[-8] ^ 1]) + data[-7:], "CRC"),
    "web page": (IMAGES, lambda data: b"\n<!DOCTYPE html><html>sign in</html>", "HTML page"),
    "magic": (IMAGES, lambda data: gzip.compress(b"\0\0\x0d\3" + gzip.decompress(data)[4:]), "magic number 00 00 0d"),
    "labels for images": (IMAGES, lambda data: gzip.compress(idx_bytes(np.zeros(9))), "expected 00 00 08 03"),
    "too short": (IMAGES, lambda data: gzip.compress(gzip.decompress(data)[:-1]), "promises 23,520 bytes"),
    "too long": (LABELS, lambda data: gzip.compress(gzip.decompress(data) + b"\0"), "holds more"),
    "header alone": (LABELS, lambda data: gzip.compress(gzip.decompress(data)[:6]), "cut off"),
    "no examples": (LABELS, lambda data: gzip.compress(idx_bytes(np.zeros(0))), "dimensions"),
    "fewer labels": (LABELS, lambda data: gzip.compress(idx_bytes(np.zeros(29))), "30 images but train-labels"),
    "label 10": (LABELS, lambda data: gzip.compress(idx_bytes(np.full(30, 10))), "label 10, expected 0 to 9"),
    "other size": (IMAGES, lambda data: gzip.compress(idx_bytes(np.zeros((30, 14, 14)))), "differ in size"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_refused_by_name_and_left_alone(fashion: Path, damage: str) -> None:
    name, spoil, says = DAMAGES[damage]
    path = fashion / "fashion-mnist" / name
    path.write_bytes(spoil(path.read_bytes()))
    before = {file: file.read_bytes() for file in path.parent.iterdir()}
    for source in ("auto", "files"):
        with pytest.raises(UserError) as caught:
            sources.fashion_mnist(Request(source=source, data_dir=fashion))
        assert says in str(caught.value)
        assert str(path.parent) in str(caught.value)
        assert "\n" not in str(caught.value)
    assert {file: file.read_bytes() for file in path.parent.iterdir()} == before


def test_a_missing_file_of_the_four_is_named(fashion: Path) -> None:
    (fashion / "fashion-mnist" / LABELS).unlink()
    with pytest.raises(UserError, match=f"lacks {LABELS}"):
        sources.fashion_mnist(Request(data_dir=fashion))


def test_no_random_damage_passes_unnoticed(fashion: Path) -> None:
    """Bit flips and cuts anywhere: refused, or (in gzip's own header) without any effect on the arrays."""
    folder = fashion / "fashion-mnist"
    whole = {path: path.read_bytes() for path in sorted(folder.iterdir())}
    sound = digest_of(sources.fashion_mnist(Request(data_dir=fashion)))
    rng = np.random.default_rng(1)
    refused = 0
    for trial in range(200):
        path = list(whole)[trial % 4]
        data = bytearray(whole[path])
        if trial % 3:
            data[rng.integers(len(data))] ^= 1 << rng.integers(8)
        else:
            del data[rng.integers(len(data)) :]
        path.write_bytes(data)
        try:
            assert digest_of(sources.fashion_mnist(Request(data_dir=fashion))) == sound
        except UserError:
            refused += 1
        path.write_bytes(whole[path])
    assert refused > 150


def test_the_real_files_have_the_published_counts_and_moments(data_dir: Path) -> None:
    for load, mean, deviation in ((sources.fashion_mnist, 0.2860, 0.3530), (sources.mnist, 0.1307, 0.3081)):
        splits = load(Request(source="files", data_dir=data_dir))
        assert (len(splits.train["inputs"]), len(splits.test["inputs"])) == (60_000, 10_000)
        assert abs(splits.train["inputs"].mean() / 255 - mean) < 1e-4
        assert abs(splits.train["inputs"].std() / 255 - deviation) < 1e-4
        assert splits.classes[9] in ("Ankle boot", "9")
    np.testing.assert_array_equal(splits.test["targets"][:10], [7, 2, 1, 0, 4, 1, 4, 9, 5, 9])  # MNIST's first ten


# TFDS


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, np.ndarray]]:
    """A data folder with a prepared TFDS fashion_mnist of 24 + 6 examples, written by TFDS itself."""
    import tensorflow as tf
    import tensorflow_datasets as tfds_api

    tfds_api.disable_progress_bar()
    data_dir = tmp_path_factory.mktemp("prepared")
    rng = np.random.default_rng(2)
    features = tfds_api.features.FeaturesDict(
        {
            "image": tfds_api.features.Image(shape=(28, 28, 1)),
            "label": tfds_api.features.ClassLabel(names=list("abcdefghij")),
        }
    )
    rows = {
        split: {"image": rng.integers(0, 256, (n, 28, 28, 1)).astype(np.uint8), "label": np.arange(n) % 10}
        for split, n in (("train", 24), ("test", 6))
    }
    tfds_api.dataset_builders.store_as_tfds_dataset(
        name="fashion_mnist",
        version="3.0.1",
        data_dir=data_dir,
        features=features,
        split_datasets={split: tf.data.Dataset.from_tensor_slices(data) for split, data in rows.items()},
    )
    return data_dir, rows["train"]


def pairs(split: dict[str, np.ndarray]) -> Counter:
    """The examples of a split whatever their order."""
    return Counter(
        (image.tobytes(), int(label)) for image, label in zip(split["inputs"], split["targets"], strict=True)
    )


def test_prepared_tfds_comes_before_files(prepared: tuple[Path, dict], fashion: Path) -> None:
    data_dir, rows = prepared
    (fashion / "fashion_mnist").symlink_to(data_dir / "fashion_mnist")
    splits = sources.fashion_mnist(Request(data_dir=fashion, offline=True))
    assert splits.source == "tfds"
    assert splits.where.endswith("fashion_mnist/3.0.1")
    assert splits.classes == tuple("abcdefghij")
    assert splits.train["targets"].dtype == np.int32

    assert pairs(splits.train) == pairs({"inputs": rows["image"], "targets": rows["label"]})
    again = sources.fashion_mnist(Request(data_dir=fashion, offline=True))
    assert digest_of(again) == digest_of(splits)
    assert sources.fashion_mnist(Request(source="files", data_dir=fashion)).source == "files"


def test_prepared_tfds_is_found_in_the_default_folder(
    prepared: tuple[Path, dict], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TFDS_DATA_DIR", str(prepared[0]))
    assert sources.fashion_mnist(Request(offline=True)).source == "tfds"
    assert sources.fashion_mnist(Request(data_dir=tmp_path, offline=True)).source == "tfds"


def test_the_newest_prepared_version_is_taken(tmp_path: Path) -> None:
    for version in ("9.0.0", "10.0.1", "11.0.0.incompleteX", "12.0.0"):
        (tmp_path / "mnist" / version).mkdir(parents=True)
        if version != "12.0.0":
            (tmp_path / "mnist" / version / "dataset_info.json").touch()
    assert tfds.prepared("mnist", tmp_path) == tmp_path / "mnist" / "10.0.1"
    assert tfds.prepared("fashion_mnist", tmp_path) is None


@pytest.mark.parametrize("damage", ["cut", "flipped", "missing", "info"])
def test_damaged_tfds_is_refused_and_left_alone(prepared: tuple[Path, dict], tmp_path: Path, damage: str) -> None:
    import shutil

    folder = tmp_path / "copy" / "fashion_mnist" / "3.0.1"
    shutil.copytree(prepared[0] / "fashion_mnist" / "3.0.1", folder)
    (shard,) = folder.glob("*train*tfrecord*")
    data = shard.read_bytes()
    if damage == "cut":
        shard.write_bytes(data[: len(data) // 2])
    elif damage == "flipped":
        shard.write_bytes(data[:1000] + bytes([data[1000] ^ 4]) + data[1001:])
    elif damage == "missing":
        shard.unlink()
    else:
        (folder / "dataset_info.json").write_text("{")
    with pytest.raises(UserError, match="damaged") as caught:
        sources.fashion_mnist(Request(data_dir=tmp_path / "copy"))
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert folder.is_dir()


@contextlib.contextmanager
def proxy(answer: Callable[[str], bytes]) -> Iterator[tuple[str, list[str]]]:
    """A loopback HTTP proxy that gives every URL its answer: (its address, the URLs asked for)."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            data = answer(self.path)
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            with contextlib.suppress(OSError):  # a probe does not wait for the file
                self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.slow  # writes 70,000 pictures; the builder of tiny_shakespeare below is TFDS' own as well
def test_the_real_tfds_builder_prepares_fashion_mnist(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TFDS' own FashionMNIST, its own URLs and checksums; the official files come through a loopback proxy."""
    real = data_dir / "fashion-mnist"
    request = Request(source="tfds", data_dir=tmp_path / "new")
    with proxy(lambda url: (real / url.rsplit("/", 1)[1]).read_bytes()) as (address, asked):
        monkeypatch.setenv("http_proxy", address)
        made = sources.fashion_mnist(request)
    assert {url.rsplit("/", 1)[1] for url in asked} == {path.name for path in real.glob("*.gz")}
    assert made.source == "download"
    assert made.classes[0] == "T-shirt/top"
    files = sources.fashion_mnist(Request(source="files", data_dir=data_dir))
    for got, expected in ((made.train, files.train), (made.test, files.test)):
        # TFDS shuffles once when it writes, so the rows are compared as a set.
        assert pairs(got) == pairs(expected)
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["fashion_mnist"]
    again = sources.fashion_mnist(Request(data_dir=tmp_path / "new", offline=True))
    assert (again.source, digest_of(again)) == ("tfds", digest_of(made))


def test_tfds_takes_files_at_hand_without_the_network(
    data_dir: Path, tmp_path: Path, no_network: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tiny-shakespeare").symlink_to(data_dir / "tiny-shakespeare")
    made = sources.tiny_shakespeare(Request(source="tfds", data_dir=tmp_path, offline=True))
    assert made.source == "download"
    assert digest_of(made) == digest_of(sources.tiny_shakespeare(Request(source="files", data_dir=data_dir)))
    assert not no_network


# The network


def test_a_portal_page_is_no_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remote = download.Remote("http://publisher.example/file.gz", 5, "0" * 64)
    with proxy(lambda url: b"<html>") as (address, _):
        monkeypatch.setenv("http_proxy", address)
        with pytest.raises(download.UnavailableError, match=r"gave an HTML page of 6 bytes .*, expected 5 bytes"):
            download.fetch(remote, tmp_path / "file.gz")
    assert not list(tmp_path.glob("file*"))


def test_fetch_checks_and_keeps_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # the example of FIPS 180
    remote = download.Remote("http://publisher.example/f", 3, abc)
    with proxy(lambda url: b"abc") as (address, _):
        monkeypatch.setenv("http_proxy", address)
        assert download.fetch(remote, tmp_path / "sub" / "f").read_bytes() == b"abc"
    assert [path.name for path in (tmp_path / "sub").iterdir()] == ["f"]


def test_a_transfer_that_stalls_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "STALL_SECONDS", 0.2)
    stop = threading.Event()

    def answer(url: str) -> bytes:
        stop.wait(5)
        return b""

    remote = download.Remote("http://publisher.example/f", 3, "0" * 64)
    with proxy(answer) as (address, _):
        monkeypatch.setenv("http_proxy", address)
        start = time.monotonic()
        with pytest.raises(download.UnavailableError):
            download.fetch(remote, tmp_path / "f")
        assert time.monotonic() - start < 3
        stop.set()


def test_a_host_that_never_answers_is_given_up_loudly(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert download.GIVE_UP_SECONDS < 9
    monkeypatch.setattr(download, "GIVE_UP_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes the connection and says nothing
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{silent.getsockname()[1]}")
        start = time.monotonic()
        with pytest.raises(UserError, match=r"download failed: .*did not answer within 0.3 s"):
            sources.fashion_mnist(Request(source="tfds"))
        assert time.monotonic() - start < 3
        splits = sources.fashion_mnist(Request())
    assert splits.name == "fashion_mnist-standin"
    assert "did not answer" in caplog.text


def test_a_name_that_cannot_be_looked_up_fails_over(no_network: list[str], caplog: pytest.LogCaptureFixture) -> None:
    splits = sources.tiny_shakespeare(Request(), length=64)
    assert splits.name == "tiny_shakespeare-standin"
    assert no_network == ["raw.githubusercontent.com"]
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "download failed" in record.message


@pytest.mark.parametrize("name", ["fashion_mnist", "mnist", "digits", "tiny_shakespeare", "california_housing"])
def test_offline_never_asks_the_network_and_says_what_a_stand_in_is(
    no_network: list[str], tmp_path: Path, name: str
) -> None:
    splits = getattr(sources, name)(Request(data_dir=tmp_path, offline=True))
    assert not no_network
    assert splits.source == "builtin"
    assert splits.name == (name if name == "digits" else f"{name}-standin")
    assert ("stand-in, not" in splits.where) == (name != "digits")
    assert "\n" not in splits.where
    assert splits.standin == (name != "digits")


@pytest.mark.parametrize(
    ("name", "source", "says"),
    [
        ("fashion_mnist", "files", "no form data.source=files in"),
        ("fashion_mnist", "tfds", "offline"),
        ("mnist", "files", "--data_dir"),
        ("tiny_shakespeare", "tfds", "no form data.source=tfds in"),
        ("california_housing", "files", "no form data.source=files in"),
        ("california_housing", "tfds", "choose one of auto, builtin, files"),
        ("digits", "tfds", "choose one of auto, builtin"),
    ],
)
def test_a_form_that_is_not_there_is_said_with_the_places(tmp_path: Path, name: str, source: str, says: str) -> None:
    with pytest.raises(UserError, match=says) as caught:
        getattr(sources, name)(Request(source=source, data_dir=tmp_path / "here", offline=True))
    assert name in str(caught.value)
    if "choose" not in says:
        assert str(tmp_path / "here") in str(caught.value)


# Digits, text, table, folder


def test_digits_are_scikit_learns_and_the_test_split_is_stratified() -> None:
    import sklearn.datasets

    splits = sources.digits(Request())
    assert splits.train["inputs"].shape == (1438, 8, 8, 1)
    every = np.concatenate([splits.train["inputs"], splits.test["inputs"]]).reshape(1797, 64)
    expected = sklearn.datasets.load_digits().data
    assert Counter(map(bytes, every)) == Counter(map(bytes, np.round(expected * 255 / 16).astype(np.uint8)))
    share = np.bincount(splits.test["targets"]) / np.bincount(sklearn.datasets.load_digits().target)
    np.testing.assert_allclose(share, 0.2, atol=0.003)


def write_text(tmp_path: Path, text: str) -> Request:
    (tmp_path / "tiny-shakespeare").mkdir(exist_ok=True)
    (tmp_path / "tiny-shakespeare" / "input.txt").write_bytes(text.encode())
    return Request(data_dir=tmp_path, offline=True)


@pytest.mark.parametrize("size", [1000, 1003, 1280])
@pytest.mark.parametrize(("length", "eval_length"), [(7, 5), (16, 10), (1, 1), (50, 64)])
def test_chunks_and_windows_cover_the_text(tmp_path: Path, size: int, length: int, eval_length: int) -> None:
    text = "".join(np.random.default_rng(size).choice(list("abcde\r\n"), size))
    splits = sources.tiny_shakespeare(write_text(tmp_path, text), length=length, eval_length=eval_length)
    known = list(splits.facts.vocabulary)
    assert known == sorted(set(text))
    train, rest = text[: int(size * 0.9)], text[int(size * 0.9) :]
    held_out = rest[: int(len(rest) * 0.5)], rest[int(len(rest) * 0.5) :]

    starts = Counter()
    for row, chunk in enumerate(splits.train["inputs"]):
        said = "".join(known[token] for token in chunk)
        assert said == train[row * length : (row + 2) * length]
        starts.update(row * length + offset for offset in range(length))
    windows = len(train) - length
    assert set(starts.values()) == {1}
    assert windows - length < len(starts) <= windows

    for part, rows in zip(held_out, (splits.validation, splits.test), strict=True):
        targets = "".join(
            known[token]
            for tokens, mask in zip(rows["inputs"], rows["mask"], strict=True)
            for token in tokens[1:][mask == 1]
        )
        assert targets == part[1:]
        assert set(np.unique(rows["mask"])) <= {0.0, 1.0}
        assert rows["inputs"].shape[1] == eval_length + 1
        assert known[rows["inputs"][0, 0]] == part[0]


def test_a_character_outside_training_gets_the_last_number(tmp_path: Path) -> None:
    text = "ab" * 500 + "zß"
    splits = sources.tiny_shakespeare(write_text(tmp_path, text), length=4, eval_length=8)
    assert list(splits.facts.vocabulary) == ["a", "b", "\N{REPLACEMENT CHARACTER}"]
    seen = splits.test["inputs"][:, 1:][splits.test["mask"] == 1]
    assert list(seen[-2:]) == [2, 2]
    assert splits.train["inputs"].max() == 1


def test_text_that_cannot_serve_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="too few for windows of 128"):
        sources.tiny_shakespeare(write_text(tmp_path, "abc" * 50))
    with pytest.raises(UserError, match="HTML page"):
        sources.tiny_shakespeare(write_text(tmp_path, "<!DOCTYPE html>" + "a" * 5000))
    request = write_text(tmp_path, "")
    (tmp_path / "tiny-shakespeare" / "input.txt").write_bytes(b"a" * 1000 + b"\xff\xfe")
    with pytest.raises(UserError, match=r"not UTF-8 text .* at byte 1000"):
        sources.tiny_shakespeare(request)


def test_the_real_shakespeare_has_65_characters(data_dir: Path) -> None:
    splits = sources.tiny_shakespeare(Request(source="files", data_dir=data_dir))
    assert len(splits.facts.vocabulary) == 65
    assert splits.validation["mask"].sum() + splits.test["mask"].sum() == 111_540 - 2  # a tenth of 1,115,394


HEADER = [*california.NUMERIC, california.TARGET, california.CATEGORY]


def write_table(tmp_path: Path, lines: list[str], header: list[str] = HEADER) -> Request:
    (tmp_path / "tabular").mkdir(exist_ok=True)
    path = tmp_path / "tabular" / "california-housing.csv"
    path.write_bytes("\r\n".join([",".join(header), *lines, ""]).encode("utf-8-sig"))
    return Request(data_dir=tmp_path, offline=True)


ROW = "-122.2,37.8,41.0,880.0,129.0,322.0,126.0,8.3,452600.0,{}"


def test_categories_come_from_training_rows_alone(tmp_path: Path) -> None:
    order = np.random.default_rng(california.TEST_SEED).permutation(10)
    names = ["INLAND" if row % 2 else "NEAR BAY" for row in range(10)]
    names[order[0]] = "ISLAND"  # a test row
    splits = sources.california_housing(write_table(tmp_path, [ROW.format(name) for name in names]))
    assert list(splits.facts.categories["ocean_proximity"]) == ["INLAND", "NEAR BAY", "(other)"]
    assert sorted(order[:2].tolist()).index(order[0]) == splits.test["inputs"]["category"].ravel().tolist().index(2)
    assert len(splits.train["targets"]) == 8
    np.testing.assert_allclose(splits.test["targets"], 4.526, rtol=1e-6)


def test_columns_may_stand_in_any_order(tmp_path: Path) -> None:
    lines = [f"{n},1,2,3,4,,6,7,INLAND,200000" for n in range(10)]
    header = [*california.NUMERIC, california.CATEGORY, california.TARGET]
    splits = sources.california_housing(write_table(tmp_path, lines, header))
    numeric = np.concatenate([splits.train["inputs"]["numeric"], splits.test["inputs"]["numeric"]])
    assert np.isnan(numeric[:, 5]).all()
    assert not np.isnan(np.delete(numeric, 5, axis=1)).any()
    assert sorted(numeric[:, 0]) == list(range(10))


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("1,2,3", "line 4: 3 cells, the header has 10"),
        (ROW.format("INLAND,x"), "line 4: 11 cells"),
        (ROW.format("INLAND").replace("880.0", "many"), "line 4, column total_rooms: 'many'"),
        (ROW.format("INLAND").replace("880.0", "1e39"), "line 4, column total_rooms: '1e39' is beyond 1e.18"),
        (ROW.format("INLAND").replace("880.0", "inf"), "line 4, column total_rooms: 'inf'"),
        (ROW.format("INLAND").replace("452600.0", ""), "line 4, column median_house_value: .*cannot be missing"),
        (ROW.format('"INLAND'), "line 4: a quote is left open"),
        (ROW.format('"IN"LAND'), "line 4: "),
        (ROW.format('"IN\nLAND"'), "line 4: a quote is left open; .*over the end of its line"),
    ],
)
def test_a_bad_row_is_named_by_file_line_and_column(tmp_path: Path, line: str, says: str) -> None:
    request = write_table(tmp_path, [ROW.format("INLAND"), ROW.format("INLAND"), line])
    with pytest.raises(UserError, match=says) as caught:
        sources.california_housing(request)
    assert "california-housing.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_header_that_lacks_a_column_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="column 'households' is missing"):
        sources.california_housing(
            write_table(tmp_path, [ROW.format("A")] * 3, [name if name != "households" else "homes" for name in HEADER])
        )


def test_the_real_housing_table(data_dir: Path) -> None:
    splits = sources.california_housing(Request(source="files", data_dir=data_dir))
    path = data_dir / "tabular" / "california-housing.csv"
    expected = np.genfromtxt(path, delimiter=",", skip_header=1, usecols=range(9))
    numeric = np.concatenate([splits.train["inputs"]["numeric"], splits.test["inputs"]["numeric"]])
    targets = np.concatenate([splits.train["targets"], splits.test["targets"]])
    assert (len(splits.train["targets"]), len(splits.test["targets"])) == (16_512, 4_128)
    assert np.isnan(numeric).sum() == np.isnan(numeric[:, 4]).sum() == 207
    assert (np.abs(targets - 5.00001) < 1e-6).sum() == 965
    both = np.c_[numeric, targets]
    expected = np.c_[expected[:, :8], expected[:, 8] / 1e5].astype(np.float32)
    assert Counter(map(bytes, np.nan_to_num(both, nan=-1))) == Counter(map(bytes, np.nan_to_num(expected, nan=-1)))
    kinds = ("<1H OCEAN", "INLAND", "ISLAND", "NEAR BAY", "NEAR OCEAN", "(other)")
    assert splits.facts.categories["ocean_proximity"] == kinds


def write_image(path: Path, value: int, mode: str = "RGB", size: tuple[int, int] = (9, 7)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value if mode in ("L", "I;16") else (value,) * len(Image.new(mode, (1, 1)).getbands())).save(
        path
    )


def test_folder_of_classes(tmp_path: Path) -> None:
    for label, name in enumerate(("cat", "dog")):
        for number in range(10):
            write_image(tmp_path / "pets" / name / f"{number}.png", 100 * label + number)
    (tmp_path / "pets" / "notes.txt").touch()
    splits = sources.folder(Request(data_dir=tmp_path), path="pets", size=(6, 4))
    assert splits.classes == ("cat", "dog")
    assert splits.train["inputs"].shape == (16, 6, 4, 3)
    for split in (splits.train, splits.test):
        np.testing.assert_array_equal(split["inputs"][:, 0, 0, 0] // 100, split["targets"])
    held = np.concatenate([splits.train["inputs"], splits.test["inputs"]])[:, 3, 2, 1]
    assert sorted(held) == [*range(10), *range(100, 110)]
    np.testing.assert_array_equal(np.bincount(splits.test["targets"]), [2, 2])


def test_folder_with_a_test_split_of_its_own(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        write_image(tmp_path / "set" / "train" / name / "1.PNG", 7, "L")
    write_image(tmp_path / "set" / "test" / "c" / "1.jpg", 9, "L")
    splits = sources.folder(Request(), path=str(tmp_path / "set"), channels=1)
    assert splits.train["inputs"].shape == (3, 28, 28, 1)
    np.testing.assert_array_equal(splits.test["targets"], [2])
    write_image(tmp_path / "set" / "test" / "d" / "1.png", 9)
    with pytest.raises(UserError, match=r"\['d'\]"):
        sources.folder(Request(), path=str(tmp_path / "set"))


def test_folder_faults_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no folder 'nothing'"):
        sources.folder(Request(data_dir=tmp_path), path="nothing")
    write_image(tmp_path / "one" / "a" / "1.png", 1)
    with pytest.raises(UserError, match="1 classes"):
        sources.folder(Request(data_dir=tmp_path), path="one")
    write_image(tmp_path / "one" / "b" / "1.png", 1)
    (tmp_path / "one" / "b" / "2.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"2\.png: no image, or .*on_bad=skip"):
        sources.folder(Request(data_dir=tmp_path), path="one")


def test_images_of_every_kind_become_8_bit(tmp_path: Path) -> None:
    write_image(tmp_path / "cmyk.jpg", 0, "CMYK")
    assert images.read(tmp_path / "cmyk.jpg", (5, 5)).min() > 250  # no ink: white
    write_image(tmp_path / "deep.png", 0x8000, "I;16")
    assert set(images.read(tmp_path / "deep.png", (5, 5), channels=1).ravel()) == {0x80}
    Image.new("RGBA", (4, 4), (255, 255, 255, 0)).save(tmp_path / "clear.png")
    assert images.read(tmp_path / "clear.png", (5, 5)).max() == 0
    upright = Image.new("L", (2, 1))
    upright.putpixel((1, 0), 255)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    upright.save(tmp_path / "turned.png", exif=exif)
    assert images.read(tmp_path / "turned.png", (2, 1), channels=1)[:, 0, 0].tolist() == [0, 255]


@pytest.mark.parametrize("keep", [0, 20, 60])
def test_a_cut_image_is_refused(tmp_path: Path, keep: int) -> None:
    write_image(tmp_path / "x.png", 3, size=(64, 64))
    data = (tmp_path / "x.png").read_bytes()
    (tmp_path / "x.png").write_bytes(data[:keep])
    with pytest.raises(UserError, match=r"x\.png"):
        images.read(tmp_path / "x.png", (8, 8))


def test_a_picture_of_too_many_pixels_is_refused_unread(tmp_path: Path) -> None:
    Image.new("1", (10_000, 6_000)).save(tmp_path / "bomb.png")
    with pytest.raises(UserError, match="10000 x 6000 pixels"):
        images.read(tmp_path / "bomb.png", (8, 8))


def test_sha256_sees_every_array() -> None:
    rows = {"a": np.zeros(3), "b": {"c": np.ones(2)}}
    same = {"b": {"c": np.ones(2)}, "a": np.zeros(3)}
    other = {"a": np.zeros(3), "b": {"c": np.array([1, np.nextafter(1, 2)])}}
    assert sha256_of(rows) == sha256_of(same) != sha256_of(other)
    assert idx.find(Path("/nowhere")) is None
