"""Public data sets, each a function Request -> Splits; `request.source` chooses the form, "auto" the first there is.

Forms in the order of "auto": prepared TFDS and the publisher's files, in --data_dir and then in TFDS' own folder; a
TFDS download; the stand-in drawn by code. `Splits.source` and `Splits.where` say what was used.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from fdl.data import planar, synthetic
from fdl.data.formats import california, cells, characters, cifar, download, idx, tfds
from fdl.data.formats.articles import bbc_summaries as bbc_summaries
from fdl.data.formats.cells import Cells
from fdl.data.formats.folders import folder as folder
from fdl.data.formats.forms import at_roots, choose, first, forms_of, splits, stratified
from fdl.data.formats.imagenet import imagenet as imagenet
from fdl.data.formats.masks import camvid as camvid
from fdl.data.formats.movielens import movielens_histories as movielens_histories
from fdl.data.formats.movielens import movielens_ratings as movielens_ratings
from fdl.data.formats.nab import nab as nab
from fdl.data.formats.parallel_texts import dates as dates
from fdl.data.formats.parallel_texts import multi30k as multi30k
from fdl.data.formats.public_series import daily_min_temperatures as daily_min_temperatures
from fdl.data.formats.public_series import etth1 as etth1
from fdl.data.formats.published_tables import auto_mpg as auto_mpg
from fdl.data.formats.published_tables import boston as boston
from fdl.data.formats.published_tables import mammography as mammography
from fdl.data.formats.sentences import imdb as imdb
from fdl.data.formats.sentences import rt_polarity as rt_polarity
from fdl.data.formats.sentences import sst as sst
from fdl.data.formats.speech import speech_commands as speech_commands
from fdl.data.formats.speech import spoken_digits as spoken_digits
from fdl.data.formats.voc import bccd as bccd
from fdl.data.moving_digits import moving_digits as moving_digits
from fdl.data.picture_forms import Form
from fdl.data.picture_spec import KEY, PictureSpec
from fdl.data.splits import LoadFunction, Request, Splits
from fdl.data.standins import garments, handwriting, standin
from fdl.types import Arrays, Count, UserError, Whole, printable, take

_FASHION_URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/t10k-labels-idx1-ubyte.gz"
_MNIST_URL = "https://storage.googleapis.com/cvdf-datasets/mnist/t10k-labels-idx1-ubyte.gz"
_CIFAR_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
_SHAKESPEARE_URL = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"

SHAKESPEARE_FILES = ("tiny-shakespeare/input.txt", "tiny_shakespeare/input.txt")

_HOUSING = download.Remote(
    "https://raw.githubusercontent.com/ageron/handson-ml2/1e2115277b50f6c584cd668fa30e3af309a5b136/datasets/housing/housing.csv",
    1_423_529,
    "8a3727f4cf54ac1a327f69b1d5b4db54c5834ea81c6e4efc0d163300022a685e",
)
_HOUSING_FILES = ("tabular/california-housing.csv", "california-housing/housing.csv", "california_housing/housing.csv")


def fashion_mnist(request: Request) -> Splits:
    """Load Fashion-MNIST (Xiao, Rasul and Vollgraf 2017): 60,000 + 10,000 grey images [28, 28, 1] of ten kinds of garments.

    Raises:
        UserError: the form asked for is not there, or is damaged; so for every source.
    """
    found = _labelled("fashion_mnist", garments.CLASSES, standin.fashion, _FASHION_URL, _idx, request)
    return _with_form(found, "fashion_mnist")


def fashion_pair(request: Request, *, first: str = "Pullover", second: str = "Coat") -> Splits:
    """Load two of Fashion-MNIST's classes, 6,000 + 1,000 images of each: targets are 0 for `first` and 1 for `second`.

    Raises:
        UserError: one of them is no class, or both are the same.
    """
    whole = fashion_mnist(request)
    for name in (first, second):
        if name not in whole.classes:
            near = difflib.get_close_matches(name.lower(), [known.lower() for known in whole.classes], 1, cutoff=0)
            hint = next(known for known in whole.classes if known.lower() == near[0])
            raise UserError(
                f"data.load: {printable(name, 60)!r} is no class of {whole.name}; the nearest is {hint!r}, and there "
                f"are {', '.join(whole.classes)}"
            )
    if first == second:
        raise UserError(f"data.load: first and second are both {first!r}: give two classes")
    numbers = [whole.classes.index(name) for name in (first, second)]

    def pair(rows: Arrays | None) -> Arrays:
        assert rows is not None  # Fashion-MNIST has both splits
        chosen = take(rows, np.isin(rows["targets"], numbers))
        return chosen | {"targets": (chosen["targets"] == numbers[1]).astype(np.int32)}

    name, mark, standin = whole.name.partition("-")
    train, test = pair(whole.train), pair(whole.test)
    return dataclasses.replace(
        whole, name=f"{name} {first}/{second}{mark}{standin}", train=train, test=test,
        facts=dataclasses.replace(whole.facts, classes=(first, second)),
    )  # fmt: skip


def mnist(request: Request) -> Splits:
    """Load MNIST (LeCun, Cortes and Burges 1998): 60,000 + 10,000 grey images [28, 28, 1] of handwritten digits."""
    return _with_form(_labelled("mnist", handwriting.CLASSES, standin.digits, _MNIST_URL, _idx, request), "mnist")


def mnist_whole(request: Request) -> Splits:
    """Load MNIST's 70,000 images as training and as test split, for what learns without labels and is scored on all of them."""
    return _whole(mnist(request))


def fashion_mnist_whole(request: Request) -> Splits:
    """Load Fashion-MNIST's 70,000 images as training and as test split, as `mnist_whole` does."""
    return _whole(fashion_mnist(request))


def _whole(loaded: Splits) -> Splits:
    assert loaded.test is not None
    rows = {name: np.concatenate([column, loaded.test[name]]) for name, column in loaded.train.items()}
    note = "training and test are the same rows; no label is trained on"
    return dataclasses.replace(loaded, train=rows, test=rows, notes=(*loaded.notes, note), sha256="")


def cifar10(request: Request) -> Splits:
    """Load CIFAR-10 (Krizhevsky 2009): 50,000 + 10,000 colour images [32, 32, 3] of ten kinds of animals and vehicles."""
    return _labelled("cifar10", cifar.CLASSES, cifar.drawn, _CIFAR_URL, lambda root, *_: cifar.load(root), request)


def digits(request: Request) -> Splits:
    """Load scikit-learn's bundled 1,797 real digits [8, 8, 1] (Alpaydin and Kaynak 1998); needs no network and no files.

    A fifth of every class, by a fixed seed, is the test split.
    """

    def bundled() -> Splits:
        import sklearn.datasets

        bundle = sklearn.datasets.load_digits()
        inputs = np.rint(bundle.images * (255 / 16)).astype(np.uint8)[..., None]
        targets = bundle.target.astype(np.int32)
        test = stratified(targets, share=0.2)
        rows = {"inputs": inputs, "targets": targets}
        where = f"the real digits bundled with scikit-learn {sklearn.__version__}"
        held = splits("digits", "builtin", where, take(rows, ~test), take(rows, test), classes=handwriting.CLASSES)
        return _with_form(held, "digits")

    return choose("digits", request, [("builtin", bundled)])


def tiny_shakespeare(
    request: Request, *, length: Count = 128, eval_length: Count = 512, context: Whole = 0, last_tenth: bool = False
) -> Splits:
    """Load Tiny Shakespeare (Karpathy 2015): 1,115,394 characters of plays, cut 90/5/5 in order as TFDS does.

    Args:
        length: training rows are chunks of 2 * length characters, from which windows of length + 1 are cut.
        eval_length: targets in a row of validation and test; rows also hold a "mask", 0 on padding.
            (`fdl.data.formats.characters` says it exactly.)
        context: characters that the model reads before them, so that it is not measured from an empty state.
        last_tenth: test on the last 10 %, nanoGPT's validation split. Its first half is the validation split, which chooses the
            checkpoint here, as the whole of it does in nanoGPT.

    Returns:
        Splits without "targets": they are the inputs, one character on. `facts.vocabulary`: the characters by number.
    """
    name = "tiny_shakespeare"

    def from_texts(source: str, where: str, texts: tuple[str, str, str], standin: bool = False) -> Splits:
        called = f"{name}-standin" if standin else name
        return characters.splits_of(
            called, source, where, texts, length, eval_length, standin, context, last_tenth
        )  # fmt: skip

    def from_tfds(source: str, folder: Path) -> Splits:
        held, _ = tfds.read(folder)
        train, validation, test = (
            tfds.text(_feature(held, split, "text", folder)) for split in ("train", "validation", "test")
        )
        return from_texts(source, f"TFDS data in {folder}", (train, validation, test))

    def from_files(root: Path) -> Splits | None:
        path = first(root, *SHAKESPEARE_FILES)
        return from_texts("files", str(path), characters.split(characters.read(path))) if path else None

    def made() -> Splits:
        where = (
            f"a stand-in, not Shakespeare: text from a random grammar (fdl.data.standins.standin), seed {standin.SEED}"
        )
        return from_texts("builtin", where, characters.split(standin.play()), standin=True)

    return choose(name, request, forms_of(name, request, from_tfds, from_files, made, _SHAKESPEARE_URL))


def california_housing(request: Request) -> Splits:
    """Load California housing (Pace and Barry 1997) with Géron's text column and 207 missing cells: 20,640 block groups.

    Rows: "inputs" {"numeric": float32 [N, 8], NaN where missing, "category": int32 [N, 1]}, "targets" float32 [N] in
    100,000 dollars (965 of them at the census's cap, 5.00001, are left as they are). A fifth is the test split.
    `facts` name the columns, the categories (the last is for any other), the target and its unit.
    """
    name = "california_housing"

    def from_table(source: str, where: str, table: Cells, suffix: str = "") -> Splits:
        train, test, facts, skipped = california.arrays(table, request.on_bad)
        standin = bool(suffix)
        return Splits(name + suffix, source, where, train, test, facts=facts, standin=standin, skipped=skipped)

    def from_files(root: Path) -> Splits | None:
        path = first(root, *_HOUSING_FILES)
        return from_table("files", str(path), cells.read(path, header="yes")) if path else None

    def fetched() -> Splits | None:
        path = download.cached(_HOUSING, "california-housing.csv", request.offline)
        return from_table("download", str(path), cells.read(path, header="yes")) if path else None

    def made() -> Splits:
        where = f"a stand-in, not census data: a table made by fdl.data.standins.standin, seed {standin.SEED}"
        return from_table("builtin", where, cells.of_rows(standin.housing(), where), suffix="-standin")

    return choose(name, request, [*at_roots(request, from_files), ("files", fetched), ("builtin", made)])


DATA_SETS: dict[str, LoadFunction] = {source.__name__: source for source in (
    fashion_mnist, fashion_mnist_whole, fashion_pair, mnist, mnist_whole, cifar10, digits, imagenet, camvid, bccd, moving_digits,
    tiny_shakespeare, california_housing, auto_mpg, boston, mammography, movielens_histories, movielens_ratings, nab,
    planar.moons, planar.circles, planar.flower, planar.fields, planar.blobs, planar.spirals,
    sst, rt_polarity, imdb, dates, multi30k,
    etth1, daily_min_temperatures, spoken_digits, speech_commands, bbc_summaries, synthetic.adding,
)}  # fmt: skip
"""Every data set that a name alone selects, as in `--set data=mnist` (`fdl.data.source_text`)."""

FORMATS: dict[str, str] = {
    "folder": "fdl.data.formats.folders.folder", "imagenet": "fdl.data.formats.imagenet.imagenet",
    "csv": "fdl.data.formats.csv.csv_file", "text": "fdl.data.formats.text.text_file",
    "voc": "fdl.data.formats.voc.voc_folder", "coco": "fdl.data.formats.coco.coco_file",
    "clips": "fdl.data.formats.clips.clip_folder", "masks": "fdl.data.formats.masks.mask_folder",
    "series": "fdl.data.formats.series.series_file", "tfds": "fdl.data.formats.tfds_sets.tfds_dataset",
}  # fmt: skip
"""What may come before a path or a name, as in `--set data=folder:birds`: the dotted name of the source, imported when used."""

_Files = Callable[[Path, str, int], tuple[str, dict[str, Arrays]] | None]
"""(a root, name of the set, number of classes) -> where its files were and their splits; None where there are none."""


def _labelled(
    name: str, classes: tuple[str, ...], draw: Callable[[], tuple[Arrays, Arrays]], url: str, files: _Files,
    request: Request,
) -> Splits:  # fmt: skip
    def from_tfds(source: str, prepared: Path) -> Splits:
        held, names = tfds.read(prepared)
        train, test = (
            {
                "inputs": _feature(held, split, "image", prepared),
                "targets": _feature(held, split, "label", prepared).astype(np.int32),
            }
            for split in ("train", "test")
        )
        return splits(name, source, f"TFDS data in {prepared}", train, test, classes=names.get("label", classes))

    def from_files(root: Path) -> Splits | None:
        found = files(root, name, len(classes))
        if found is None:
            return None
        where, held = found
        return splits(name, "files", where, held["train"], held["test"], classes=classes)

    def made() -> Splits:
        train, test = draw()
        where = f"a stand-in, not the real {name}: drawn by {draw.__module__}, seed {standin.SEED}"
        return splits(f"{name}-standin", "builtin", where, train, test, classes=classes, standin=True)

    return choose(name, request, forms_of(name, request, from_tfds, from_files, made, url))


def _with_form(held: Splits, form: Form) -> Splits:
    """Note how the publisher placed what his grey pictures show on black, for the user's own."""
    shape = tuple(map(int, held.train["inputs"].shape[1:]))
    spec = PictureSpec(shape, "uint8", 255.0, dark=True, form=form)
    return dataclasses.replace(held, facts=dataclasses.replace(held.facts, extra={KEY: spec.to_json()}))


def _idx(root: Path, name: str, num_classes: int) -> tuple[str, dict[str, Arrays]] | None:
    for place in (root / name.replace("_", "-"), root / name):
        paths = idx.find(place)
        if paths:
            return f"IDX files in {place}", idx.load(paths, num_classes)
    return None


def _feature(held: Mapping[str, Arrays], split: str, feature: str, prepared: Path) -> np.ndarray:
    try:
        return held[split][feature]
    except KeyError:
        raise UserError(
            f"the TFDS data in {prepared} has no {feature!r} in split {split!r}: move the folder away"
        ) from None
