"""Ops against NumPy, at their edges, inside jit as they run."""

import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from fdl.data import ops
from fdl.types import UserError

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (40, 6, 5, 3), dtype=np.uint8)


def apply(op, train, batch, *draws):
    """The fitted op under jit, with the uniform numbers its calls of draw get, in order."""
    statistics = op.fit(train)

    @jax.jit
    def run(batch, draws):
        rest = iter(draws)

        def draw(shape):
            numbers = next(rest)
            assert numbers.shape[1:] == shape
            return jnp.asarray(numbers, jnp.float32)

        out = op.transform(batch, draw if draws else None, statistics)
        assert next(rest, None) is None
        return out

    return jax.tree.map(np.asarray, run(batch, [np.asarray(d, np.float32) for d in draws]))


def images(x=IMAGES, **more):
    return {"inputs": x, **more}


def test_standardize_is_by_channel_over_training_alone():
    test = images(IMAGES[:4] // 2, mask=np.ones(4), id=np.arange(4))
    out = apply(ops.Standardize(), images(), test)
    flat = IMAGES.reshape(-1, 3).astype(np.float64)
    np.testing.assert_allclose(out["inputs"], (test["inputs"] - flat.mean(0)) / flat.std(0), rtol=1e-4, atol=1e-5)
    assert out["inputs"].dtype == np.float32
    np.testing.assert_array_equal(out["id"], np.arange(4))
    np.testing.assert_array_equal(out["mask"], np.ones(4))


def test_standardize_unit_none_and_a_constant_channel():
    np.testing.assert_allclose(apply(ops.Standardize("unit"), images(), images())["inputs"], IMAGES / 255, rtol=1e-5)
    np.testing.assert_array_equal(apply(ops.Standardize("none"), images(), images())["inputs"], IMAGES)
    constant = np.full((3, 2, 2, 1), 7, np.uint8)
    np.testing.assert_array_equal(
        apply(ops.Standardize(), images(constant), images(constant))["inputs"], np.zeros(constant.shape)
    )
    with pytest.raises(UserError, match="whole numbers"):
        ops.Standardize("unit").fit(images(np.zeros((2, 2), np.float32)))


@pytest.mark.parametrize(
    ("dtype", "high", "white"),
    [(np.uint8, 9, 255), (np.uint16, 9, 65_535), (np.int32, 255, 255), (np.int64, 256, 65_535), (np.int16, 200, 255)],
)
def test_unit_is_of_a_pictures_white_not_of_its_type(dtype, high, white):
    held = images(np.array([[0, high]], dtype).reshape(1, 1, 2, 1))
    np.testing.assert_allclose(
        apply(ops.Standardize("unit"), held, held)["inputs"].ravel(), [0, high / white], rtol=1e-6
    )


@pytest.mark.parametrize("value", [-1, 65_536])
def test_unit_refuses_numbers_that_are_no_pixels(value):
    with pytest.raises(UserError, match="set it to mean_std"):
        ops.Standardize("unit").fit(images(np.full((1, 2, 2, 1), value, np.int32)))


@pytest.mark.parametrize("scale", ["unit", "mean_std"])
def test_pictures_without_an_axis_of_channels_are_refused(scale):
    with pytest.raises(UserError, match=r"pictures need an axis of channels: .* expected \[3, 8, 8, 1\]"):
        ops.Standardize(scale).fit(images(np.zeros((3, 8, 8), np.uint8)))
    ops.Standardize(scale).fit(images(np.zeros((3, 8, 8, 1), np.uint8)))


def test_statistics_over_several_blocks_and_far_from_zero():
    table = RNG.normal(1e6, 2, (10_000, 2))
    mean, deviation = ops.channel_statistics(table)
    np.testing.assert_allclose(mean, table.mean(0), rtol=1e-12)
    np.testing.assert_allclose(deviation, table.std(0), rtol=1e-8)


def test_flip_mirrors_where_the_draw_says():
    out = apply(ops.Flip(), images(), images(IMAGES[:3]), [0.49, 0.5, 0.0])
    np.testing.assert_array_equal(out["inputs"], [IMAGES[0, :, ::-1], IMAGES[1], IMAGES[2, :, ::-1]])
    assert out["inputs"].dtype == np.uint8


def test_shift_moves_each_image_by_its_own_offset():
    offsets = [(dy, dx) for dy in range(-2, 3) for dx in range(-2, 3)]
    draws = [((dy + 2.5) / 5, (dx + 2.5) / 5) for dy, dx in offsets]
    out = apply(ops.Shift(2, fill=9), images(), images(IMAGES[:25]), draws)["inputs"]
    for image, moved, (dy, dx) in zip(IMAGES, out, offsets, strict=False):
        padded = np.pad(image, ((2, 2), (2, 2), (0, 0)), constant_values=9)
        np.testing.assert_array_equal(moved, padded[2 - dy : 8 - dy, 2 - dx : 7 - dx])
    assert out.dtype == np.uint8


def test_shift_at_its_edges():
    last = np.nextafter(np.float32(1), np.float32(0))
    out = apply(ops.Shift(1), images(), images(IMAGES[:2]), [(0, 0), (last, last)])["inputs"]
    np.testing.assert_array_equal(out[0, :-1, :-1], IMAGES[0, 1:, 1:])
    np.testing.assert_array_equal(out[1, 1:, 1:], IMAGES[1, :-1, :-1])
    assert not out[1, 0].any()
    assert not out[1, :, 0].any()
    np.testing.assert_array_equal(apply(ops.Shift(0), images(), images(), np.zeros((40, 2)))["inputs"], IMAGES)
    wider = apply(ops.Shift(7), images(), images(IMAGES[:1]), [(0.0, 0.5)])["inputs"]
    assert not wider.any()


def test_shift_takes_every_offset_alike():
    ones = np.ones((5000, 5, 1, 1), np.uint8)
    uniform = RNG.random((5000, 2))
    out = apply(ops.Shift(2), images(ones), images(ones), uniform)["inputs"][:, :, 0, 0]
    up, down = (out[:, 4] == 0), (out[:, 0] == 0)
    assert up[np.abs(uniform[:, 1] - 0.5) < 0.1].mean() == pytest.approx(0.4, abs=0.06)
    assert down[np.abs(uniform[:, 1] - 0.5) < 0.1].mean() == pytest.approx(0.4, abs=0.06)


def test_cutout():
    x = np.ones((3, 6, 5, 1), np.uint8)
    centres = [(0.5, 0.5), (0.0, 0.99), (0.5, 0.5)]  # rows 3, 0, 3; columns 2, 4, 2
    out = apply(ops.Cutout(2, probability=0.5), images(x), images(x), centres, [0.1, 0.1, 0.9])["inputs"][..., 0]
    expected = np.ones((3, 6, 5))
    expected[0, 2:4, 1:3] = 0
    expected[1, 0:1, 3:5] = 0
    np.testing.assert_array_equal(out, expected)


def test_noise_is_normal():
    x = np.full((100, 100), 50, np.uint8)
    uniform = RNG.random((100, 100))
    uniform[0, 0] = 0
    out = apply(ops.Noise(3.0), images(x), images(x), uniform)["inputs"]
    assert np.isfinite(out).all()
    np.testing.assert_allclose(out[1:], 50 + 3 * stats.norm.ppf(uniform[1:]), atol=1e-2)


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_mixup_mixes_neighbours(alpha):
    targets = np.array([0, 1, 2, 0, 1])
    uniform = np.array([0.1, 0.3, 0.5, 0.7, 0.9])
    batch = images(IMAGES[:5], targets=targets)
    out = apply(ops.Mixup(alpha), {"targets": targets}, batch, uniform)
    share = stats.beta.ppf(uniform, alpha, alpha)
    other = [1, 0, 3, 2, 4]
    x, y = IMAGES[:5].astype(float), np.eye(3)[targets]
    np.testing.assert_allclose(out["targets"], share[:, None] * y + (1 - share)[:, None] * y[other], atol=1e-3)
    by = share[:, None, None, None]
    np.testing.assert_allclose(out["inputs"], by * x + (1 - by) * x[other], atol=0.3)
    np.testing.assert_array_equal(apply(ops.Mixup(), {"targets": targets}, batch)["targets"], targets)


def test_cutmix_labels_follow_the_pasted_area():
    black, white = np.zeros((8, 8, 1), np.uint8), np.ones((8, 8, 1), np.uint8)
    batch = images(np.stack([black, white] * 50), targets=np.array([0, 1] * 50))
    out = apply(ops.Cutmix(1.0), batch, batch, RNG.random(100), RNG.random((100, 2)))
    white_share = out["inputs"].astype(float).mean((1, 2, 3))
    np.testing.assert_allclose(out["targets"], np.stack([1 - white_share, white_share], 1), atol=1e-6)
    assert out["inputs"].dtype == np.uint8
    assert 0.1 < white_share[::2].mean() < 0.5


def test_random_window_and_next_token():
    rows = np.arange(24, dtype=np.uint8).reshape(3, 8)
    train = {"inputs": rows}
    cut = apply(ops.RandomWindow(), train, {"inputs": rows, "id": np.arange(3)}, [0.0, 0.3, 0.999])
    np.testing.assert_array_equal(cut["inputs"], [rows[0, 0:5], rows[1, 1:6], rows[2, 3:8]])
    np.testing.assert_array_equal(cut["id"], np.arange(3))
    split = apply(ops.NextToken(), train, cut)
    assert split["inputs"].dtype == split["targets"].dtype == np.int32
    np.testing.assert_array_equal(split["inputs"][1], [9, 10, 11, 12])
    np.testing.assert_array_equal(split["targets"][1], [10, 11, 12, 13])
    np.testing.assert_array_equal(apply(ops.RandomWindow(), train, train)["inputs"], rows)


TABLE = {
    "numeric": np.array([[1, 10, 5], [2, np.nan, 5], [3, 30, 5], [6, 50, 5]], np.float32),
    "category": np.array([0, 2, 1, 0], np.int32),
}


def test_tabular_standard():
    new = {"numeric": np.array([[np.nan, np.nan, 7]], np.float32), "category": np.array([3], np.int32)}
    op = ops.Tabular()
    filled = TABLE["numeric"].astype(np.float64)
    filled[1, 1] = 30
    mean, deviation = filled.mean(0), np.array([filled[:, 0].std(), filled[:, 1].std(), 1])
    out = apply(op, {"inputs": TABLE}, {"inputs": TABLE, "mask": np.ones(4)})["inputs"]
    np.testing.assert_allclose(out[:, :3], (filled - mean) / deviation, atol=1e-6)
    np.testing.assert_array_equal(out[:, 3], [0, 1, 0, 0])  # the one column with a missing cell in training
    np.testing.assert_array_equal(out[:, 4:], np.eye(3)[TABLE["category"]])
    unseen = apply(op, {"inputs": TABLE}, {"inputs": new})["inputs"]
    np.testing.assert_allclose(unseen[0, :3], (np.array([2.5, 30, 7]) - mean) / deviation, atol=1e-6)
    np.testing.assert_array_equal(unseen[0, 3:], [1, 0, 0, 0])


def test_tabular_quantiles_are_normal_whatever_the_shape():
    rng = np.random.default_rng(3)
    column = np.exp(rng.normal(size=5000) * 2)
    capped = np.minimum(rng.normal(size=5000), 0.5)  # three in ten share the cap
    train = {"inputs": {"numeric": np.stack([column, capped], 1).astype(np.float32)}}
    out = apply(ops.Tabular("quantile"), train, train)["inputs"]
    assert out.shape == (5000, 2)
    assert stats.kstest(out[:, 0], "norm").statistic < 0.005
    middle = stats.norm.ppf(1 - np.mean(capped == 0.5) / 2)
    np.testing.assert_allclose(out[capped == 0.5, 1], middle, atol=0.02)
    far = apply(ops.Tabular("quantile"), train, {"inputs": {"numeric": np.array([[1e9, -1e9]], np.float32)}})["inputs"]
    np.testing.assert_allclose(far, [[stats.norm.ppf(0.9995), -stats.norm.ppf(0.9995)]], rtol=1e-3)


def test_tabular_with_a_column_all_missing():
    train = {"inputs": {"numeric": np.array([[np.nan, 1], [np.nan, 3]], np.float32)}}
    np.testing.assert_array_equal(apply(ops.Tabular(), train, train)["inputs"], [[0, -1, 1], [0, 1, 1]])


KINDS = np.array([[0, 5], [2, 7], [0, 5], [2, 6]], np.int32)  # in the second column 0 to 4 are in no training row


def test_several_category_columns_are_one_hot_side_by_side():
    train = {"inputs": {"numeric": np.zeros((4, 0), np.float32), "category": KINDS}}
    out = apply(ops.Tabular(), train, train)["inputs"]
    expected = OneHotEncoder(sparse_output=False, handle_unknown="ignore").fit(KINDS)
    np.testing.assert_array_equal(out, expected.transform(KINDS))
    new = np.array([[2, 0], [1, 6], [3, 9], [-1, 7]], np.int32)
    unseen = apply(ops.Tabular(), train, {"inputs": {"numeric": np.zeros((4, 0), np.float32), "category": new}})
    np.testing.assert_array_equal(unseen["inputs"], expected.transform(new))


def test_categories_as_indices_for_embeddings():
    inputs = {"numeric": np.array([[1.0], [np.nan], [3.0], [5.0]], np.float32), "category": KINDS}
    out = apply(ops.Tabular(category="index"), {"inputs": inputs}, {"inputs": inputs})["inputs"]
    np.testing.assert_array_equal(out["category"], [[0, 0], [1, 2], [0, 0], [1, 1]])
    assert out["category"].dtype == np.int32
    np.testing.assert_array_equal(out["numeric"][:, 1], [0, 1, 0, 0])
    new = {"numeric": np.zeros((2, 1), np.float32), "category": np.array([[1, 7], [2, 0]], np.int32)}
    unseen = apply(ops.Tabular(category="index"), {"inputs": inputs}, {"inputs": new})["inputs"]
    np.testing.assert_array_equal(unseen["category"], [[2, 2], [1, 3]])


@pytest.mark.parametrize("value", [0.1, 1e-9, 12345.678, -3e7, 0.0])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_constant_column_is_scaled_as_sklearn_scales_it(value: float, dtype: type):
    columns = np.stack([np.full(1000, value, dtype), RNG.normal(size=1000).astype(dtype)], axis=1)
    new = np.array([[value + 0.1, 2.0]], dtype)
    scaler = StandardScaler().fit(columns.astype(np.float64))
    out = apply(ops.Tabular(), {"inputs": {"numeric": columns}}, {"inputs": {"numeric": new}})["inputs"]
    rounding = 2 * np.spacing(np.float32(abs(value) + 0.1))  # the device computes in float32
    np.testing.assert_allclose(out, scaler.transform(new), rtol=1e-4, atol=1e-5 + rounding)
    assert np.abs(out[0, 0]) < 5


def test_fitting_a_table_holds_one_column_at_a_time():
    table = {"inputs": {"numeric": RNG.normal(size=(50_000, 40)).astype(np.float32)}}
    for op in (ops.Tabular(), ops.Tabular("quantile")):
        tracemalloc.start()
        op.fit(table)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 0.5 * table["inputs"]["numeric"].nbytes


@pytest.mark.parametrize("shape", [(50,), (50, 3)])
def test_targets_are_scaled_as_sklearn_scales_them_and_outputs_come_back(shape: tuple[int, ...]):
    targets = (RNG.normal(size=shape) * 40_000 + 200_000).astype(np.float32)
    rows = {"inputs": np.zeros((50, 2), np.float32), "targets": targets}
    batch = apply(ops.ScaleTargets(), rows, rows)
    np.testing.assert_array_equal(batch["targets"], targets)
    scaler = StandardScaler().fit(targets.reshape(50, -1).astype(np.float64))
    z = RNG.normal(size=(50, targets.size // 50)).astype(np.float32)  # as a net with one or three outputs gives them
    expected = scaler.inverse_transform(z)
    np.testing.assert_allclose(ops.unscale_outputs(z, batch), expected, rtol=1e-5)
    np.testing.assert_array_equal(ops.unscale_outputs(z, rows), z)
    new = apply(ops.ScaleTargets(), rows, {"inputs": {"numeric": np.zeros((7, 2))}})  # rows to predict have no targets
    assert new["target_mean"].shape == new["target_deviation"].shape == (7, *shape[1:])


def test_targets_that_cannot_be_scaled():
    with pytest.raises(UserError, match="ScaleTargets is for targets that are values, and these are int32"):
        ops.ScaleTargets().fit({"targets": np.zeros(3, np.int32)})
    statistics = ops.ScaleTargets().fit({"targets": np.full(9, 0.1, np.float32)})
    assert statistics["deviation"] == 1
