"""Clips: the frames of GIFs, folders of pictures and MP4 files, generated digits, nets over time, predictions of a user's own."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from fdl.data import Facts, Request, Splits
from fdl.data.formats.bad_inputs import BadInputs
from fdl.data.formats.clips import clip_folder, read_clip
from fdl.data.formats.frames import Frame
from fdl.data.moving_digits import moving_digits
from fdl.models import FrameLSTM, VideoCNN
from fdl.models.video import TimeConv
from fdl.tasks import VideoClassification, View
from fdl.types import UserError

RNG = np.random.default_rng(0)
GREY = Frame((16, 16), 1)


def frames_of(count: int) -> list[Image.Image]:
    """Each brighter by 20 than the one before."""
    return [Image.new("L", (16, 16), 20 * number) for number in range(count)]


def gif(path: Path, count: int = 5) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    first, *others = frames_of(count)
    first.save(path, save_all=True, append_images=others, duration=40)
    return path


def sequence(folder: Path, count: int = 12) -> Path:
    folder.mkdir(parents=True)
    for number, picture in enumerate(frames_of(count)):
        picture.save(folder / f"frame{number}.png")
    return folder


def test_frames_at_equal_distances_whatever_the_clip_is(tmp_path: Path) -> None:
    def grey(path: Path, frames: int) -> list[int]:
        return [int(np.median(frame)) for frame in read_clip(path, frames, GREY)]

    assert grey(gif(tmp_path / "a.gif"), 3) == [0, 40, 80]
    assert grey(tmp_path / "a.gif", 9) == [0, 0, 20, 40, 40, 40, 60, 80, 80]  # a shorter clip repeats some
    assert grey(sequence(tmp_path / "own"), 4) == [0, 80, 140, 220]  # frame 10 comes after frame 9, not after frame 1


def test_an_mp4_is_read_through_av(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for number in range(8):
            picture = np.full((32, 32, 3), 30 * number, np.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture)):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    found = [int(np.median(frame)) for frame in read_clip(tmp_path / "a.mp4", 8, GREY)]
    np.testing.assert_allclose(found, 30 * np.arange(8), atol=6)
    (tmp_path / "b.mp4").write_bytes(b"no video" * 50)
    with pytest.raises(ValueError, match="no video that can be read"):
        read_clip(tmp_path / "b.mp4", 8, GREY)


def test_a_video_without_the_library_is_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(UserError, match=r"pip install 'fdl\[video\]'"):
        read_clip(tmp_path / "a.mp4", 8, GREY)


def test_a_folder_of_clips_by_class_and_split(tmp_path: Path) -> None:
    for name in ("fall", "rise"):
        for number in range(3):
            gif(tmp_path / "all" / name / f"{number}.gif")
            gif(tmp_path / "split" / "train" / name / f"{number}.gif")
        sequence(tmp_path / "split" / "test" / name / "1")
    read = clip_folder(Request(), path=str(tmp_path / "all"), frames=4, size=(8, 10), channels=1)
    assert read.classes == ("fall", "rise")
    assert read.train["inputs"].shape == (4, 4, 8, 10, 1)
    assert read.test is not None
    assert np.bincount(read.test["targets"]).tolist() == [1, 1]
    split = clip_folder(Request(), path=str(tmp_path / "split"), frames=4)
    assert split.test is not None
    assert [len(rows["inputs"]) for rows in (split.train, split.test)] == [6, 2]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda f: (f / "fall" / "0.gif").write_bytes(b"GIF89a broken"), "0.gif"),
        (lambda f: Image.new("L", (4, 4)).save(f / "fall" / "0.gif"), "1 frames are no clip"),
        (lambda f: (f / "fall" / "empty").mkdir(), "0 frames are no clip"),
    ],
)
def test_bad_clips_are_one_line_and_left_out_on_demand(tmp_path: Path, spoil: Any, said: str) -> None:
    for name in ("fall", "rise"):
        for number in range(4):
            gif(tmp_path / name / f"{number}.gif", 2)
    spoil(tmp_path)
    with pytest.raises(BadInputs, match=said) as raised:
        clip_folder(Request(), path=str(tmp_path))
    assert "\n" not in str(raised.value)
    assert len(clip_folder(Request(on_bad="skip"), path=str(tmp_path)).skipped) == 1


def test_no_folder_and_one_class_are_lines(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no folder 'nowhere'"):
        clip_folder(Request(), path="nowhere")
    gif(tmp_path / "fall" / "0.gif")
    with pytest.raises(UserError, match="clips of 1 classes"):
        clip_folder(Request(), path=str(tmp_path))


@pytest.fixture(scope="module")
def digits() -> Splits:
    return moving_digits(Request(source="builtin", offline=True), frames=5, side=26, motions=("left", "down"), clips=60)


def test_generated_digits_move_a_pixel_a_frame_the_way_their_class_says(digits: Splits) -> None:
    assert digits.classes[3] == "1 down"
    assert digits.test is not None
    assert [len(rows["inputs"]) for rows in (digits.train, digits.test)] == [60, 12]
    for clip, target in zip(digits.train["inputs"][:, ..., 0], digits.train["targets"], strict=True):
        down = digits.classes[target].endswith("down")
        for before, after in itertools.pairwise(clip):
            np.testing.assert_array_equal(after, np.roll(before, *((1, 0) if down else (-1, 1))))
        assert (clip.sum((1, 2)) == clip[0].sum()).all()  # nothing leaves the picture
    again = moving_digits(
        Request(source="builtin", offline=True), frames=5, side=26, motions=("left", "down"), clips=60
    )
    np.testing.assert_array_equal(again.train["inputs"], digits.train["inputs"])
    with pytest.raises(UserError, match="expected some of left, right, up, down"):
        moving_digits(Request(source="builtin", offline=True), motions=("left", "round"))
    with pytest.raises(UserError, match="needs 27 or more"):
        moving_digits(Request(source="builtin", offline=True), side=26)


def test_a_convolution_over_time_is_pytorchs() -> None:
    torch = pytest.importorskip("torch")
    x = RNG.normal(size=(2, 6, 3, 4, 5)).astype(np.float32)
    made, variables = jax.jit(TimeConv(7).init_with_output)(jax.random.key(0), x)
    kernel = torch.tensor(np.asarray(variables["params"]["kernel"])).permute(2, 1, 0)[..., None, None]
    expected = torch.nn.functional.conv3d(torch.tensor(x).permute(0, 4, 1, 2, 3), kernel, padding=(1, 0, 0)).permute(
        0, 2, 3, 4, 1
    )
    np.testing.assert_allclose(made, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("model", [VideoCNN(filters=(4, 6), outputs=3), FrameLSTM(filters=(4, 6), width=5, outputs=3)])
def test_the_order_of_the_frames_matters_to_the_nets(model: Any) -> None:
    x = jnp.asarray(RNG.normal(size=(2, 5, 9, 8, 1)), jnp.float32)
    made, variables = jax.jit(model.init_with_output)(jax.random.key(0), x)
    assert made.shape == (2, 3)
    assert np.abs(made - jax.jit(model.apply)(variables, x[:, ::-1])).max() > 1e-4


def test_baselines_panels_and_predictions_of_a_users_clips(tmp_path: Path, digits: Splits) -> None:
    task = VideoClassification(top=2)
    moving = RNG.integers(0, 9, (120, 3, 4, 4, 1)).astype(np.uint8)
    kinds = RNG.integers(0, 2, 120).astype(np.int32)
    moving[np.arange(120), np.where(kinds, 0, 2), :2, :2] += 200  # brighter before the middle, or after it
    parts = [{"inputs": moving[part], "targets": kinds[part]} for part in (slice(80), slice(80, 120))]
    scores = {name: held["accuracy"] for name, held in task.baselines(Splits("toy", "builtin", "here", *parts)).items()}
    assert scores["frame differences"] == 1
    assert scores["one frame"] < 0.75
    assert scores["majority class"] == pytest.approx((kinds[80:] == np.bincount(kinds[:80]).argmax()).mean())

    def outputs(rows: Any) -> np.ndarray:
        return np.tile(np.arange(20.0), (len(rows["inputs"]), 1))

    facts = Facts(classes=digits.classes, extra={"clip": {"frames": 5, "size": [26, 26], "channels": 1}})
    splits = Splits("toy", "builtin", "here", digits.train, digits.test, facts=facts)
    view = View(splits, VideoCNN(), {}, outputs, lambda rows: rows, lambda rows: rows)
    strips = task.panels(view)[0]()
    assert strips is not None
    assert strips.figure is not None
    gif(tmp_path / "in" / "a.gif")
    (tmp_path / "in" / "b.gif").write_bytes(b"broken")
    written = task.predict(view, str(tmp_path / "in"), tmp_path / "out")
    assert [path.name for path in written] == ["predictions.csv", "bad_inputs.csv"]
    lines = (tmp_path / "out" / "predictions.csv").read_text().splitlines()
    assert lines[0] == "file,class_1,confidence_1,class_2,confidence_2"
    assert lines[1].startswith("a.gif,9 down,0.63")
    sequence(tmp_path / "frames")
    task.predict(view, str(tmp_path / "frames"), tmp_path / "own")
    assert (tmp_path / "own" / "predictions.csv").read_text().splitlines()[1].startswith("frames,9 down")
    with pytest.raises(UserError, match="no clip in"):
        task.predict(view, str(tmp_path / "out"), tmp_path / "none")
