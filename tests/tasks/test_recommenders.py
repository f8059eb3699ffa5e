"""Ratings and recommendations: the baselines by their equations, lists against scikit-learn, MovieLens' files, a user's list."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import ndcg_score

from fdl.data import Request, Splits
from fdl.data.formats.movielens import movielens_histories, movielens_ratings
from fdl.models import BiasedFactors, TwoTowers
from fdl.tasks import Ratings, Recommendation
from fdl.tasks.ratings import damped_biases
from fdl.tasks.recommendation import ease, list_metrics
from fdl.tasks.task import View
from fdl.types import UserError

RNG = np.random.default_rng(2)


def files(folder: Path, change: str = "") -> Path:
    """Ten users of twelve films; ids have gaps."""
    (folder / "movielens").mkdir()
    lines = [
        f"{3 * user},{100 + 10 * film},{1 + (user + film) % 5 - 0.5},0"
        for user in range(10)
        for film in range(user % 3, 12)
    ]
    (folder / "movielens/ratings.csv").write_text(
        "\n".join(["userId,movieId,rating,timestamp", *lines, *filter(None, [change])]) + "\n"
    )
    titles = "\n".join(f'{100 + 10 * film},"Film, The {film}",Drama' for film in range(11))  # one is not listed
    (folder / "movielens/movies.csv").write_text(f"movieId,title,genres\n{titles}\n")
    return folder


def test_ease_is_the_closed_form_of_the_paper() -> None:
    x = (RNG.random((15, 8)) < 0.4).astype(float)
    inverse = np.linalg.inv(x.T @ x + 20 * np.eye(8))
    weights = inverse / -np.diag(inverse)
    np.fill_diagonal(weights, 0)
    np.testing.assert_allclose(ease(x, 20.0), x @ weights, atol=1e-10)


def test_lists_are_measured_as_scikit_learn_does() -> None:
    scores, wanted = RNG.normal(size=(30, 20)), (RNG.random((30, 20)) < 0.2).astype(np.uint8)
    wanted[4] = 0  # a user with nothing to find is left out
    items = np.argsort(-scores, axis=1)[:, :5]
    some = wanted.sum(1) > 0
    found = list_metrics(items, wanted)
    assert found["ndcg"] == pytest.approx(ndcg_score(wanted[some], scores[some], k=5))
    recall = [wanted[u, items[u]].sum() / wanted[u].sum() for u in np.flatnonzero(some)]
    assert found["recall"] == pytest.approx(np.mean(recall))


def test_damped_biases_satisfy_their_equations() -> None:
    user, item = RNG.integers(0, 6, 80), RNG.integers(0, 9, 80)
    rating = RNG.uniform(2, 4, 80)
    train = {"inputs": {"user": user, "item": item}, "targets": rating}
    grid = {"user": np.repeat(np.arange(6), 9), "item": np.tile(np.arange(9), 6)}
    found = damped_biases(train, grid, 5, 3, rounds=200).reshape(6, 9)
    # The ridge regression that those equations are the normal equations of.
    design = np.concatenate([np.eye(6)[user], np.eye(9)[item]], axis=1)
    decay = np.diag([5.0] * 6 + [3.0] * 9)
    biases = np.linalg.solve(design.T @ design + decay, design.T @ (rating - rating.mean()))
    np.testing.assert_allclose(found, rating.mean() + biases[:6, None] + biases[6:], rtol=1e-6)


def test_ratings_are_pairs_and_every_split_is_another_tenth(tmp_path: Path) -> None:
    request = Request(data_dir=files(tmp_path))
    first, second = (movielens_ratings(request, split=number) for number in (0, 1))
    extra = first.facts.extra
    assert (extra["users"], extra["items"], extra["titles"][3], extra["titles"][11]) == (
        10,
        12,
        "Film, The 3",
        "film 210",
    )
    pairs = [
        set(zip(*(part["inputs"][name].tolist() for name in ("user", "item")), strict=True))
        for part in (first.train, first.test)
    ]  # type: ignore[index]
    assert len(pairs[1]) == 11
    assert not pairs[0] & pairs[1]
    assert sorted(pairs[0] | pairs[1]) == [(user, film) for user in range(10) for film in range(user % 3, 12)]
    assert not np.array_equal(first.test["inputs"]["item"], second.test["inputs"]["item"])  # type: ignore[index]


def test_histories_and_films_held_out_never_meet(tmp_path: Path) -> None:
    splits = movielens_histories(Request(data_dir=files(tmp_path)))
    train, validation, test = splits.train, splits.validation, splits.test
    assert validation is not None
    assert test is not None
    np.testing.assert_array_equal(train["inputs"], train["targets"])
    np.testing.assert_array_equal(test["inputs"], validation["inputs"] + validation["targets"])
    assert not (test["inputs"] & test["targets"]).any()
    everything = test["inputs"] | test["targets"]
    assert [row.nonzero()[0].tolist() for row in everything] == splits.facts.extra["rated"]
    assert test["targets"].sum(1).tolist() == [2] * 10


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("0,100,7,0", "0.5 to 5 stars"),
        ("0,x,3,0", "'x'.*two whole numbers"),
        ("0,100,3,0", "rates a film twice"),
        ("0,100", "2 cells, the header has 4"),
    ],
)
def test_bad_ratings_are_one_line(tmp_path: Path, change: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        movielens_ratings(Request(data_dir=files(tmp_path, change)))


def listed(path: Path) -> list[list[str]]:
    with path.open() as file:
        return list(csv.reader(file))


def test_a_user_gets_the_unseen_films_with_the_highest_ratings(tmp_path: Path) -> None:
    splits = movielens_ratings(Request(data_dir=files(tmp_path)))

    def outputs(rows: Any) -> Any:
        return {"rating": rows["inputs"]["item"] / 10 + rows["inputs"]["user"]}

    view = View(splits, BiasedFactors(), {}, outputs, dict, dict)
    (path,) = Ratings(top=10).predict(view, "6", tmp_path)  # user 2, who has not rated films 0 and 1
    assert listed(path) == [
        ["place", "movieId", "title", "predicted rating"],
        ["1", "110", "Film, The 1", "2.1000"],
        ["2", "100", "Film, The 0", "2.0000"],
    ]
    with pytest.raises(UserError, match="no such user"):
        Ratings().predict(view, "7", tmp_path)


def test_anybodys_films_get_a_list_without_them(tmp_path: Path) -> None:
    splits = movielens_histories(Request(data_dir=files(tmp_path)))
    model, task = TwoTowers(items=12, embedding=4, width=3), Recommendation(top=4)
    variables = model.init(jax.random.key(0), splits.train["inputs"][:1])

    def over(rows: Any) -> Any:
        batch = jax.tree.map(jnp.asarray, rows)
        yield rows, jax.device_get(task.decode(model, variables, batch))

    view = View(splits, model, variables, len, dict, dict, over=over)  # type: ignore[arg-type]
    (tmp_path / "mine.csv").write_text("movieId,rating\n100,5\n130,4\n99999,1\n")
    (path,) = task.predict(view, str(tmp_path / "mine.csv"), tmp_path)
    films = [int(row[1]) for row in listed(path)[1:]]
    assert len(films) == 4
    assert not {100, 130} & set(films)
    held = splits.test
    assert held is not None
    decoded = next(over(held))[1]
    seen = np.take_along_axis(held["inputs"], decoded["items"], 1) > 0
    np.testing.assert_array_equal(seen, ~np.isfinite(decoded["scores"]))  # only where nothing else is left
    (path,) = task.predict(view, "0", tmp_path)  # has rated every film
    assert len(listed(path)) == 1
    (tmp_path / "mine.csv").write_text("movieId\n99999\n")
    with pytest.raises(UserError, match="none of its 1 films"):
        task.predict(view, str(tmp_path / "mine.csv"), tmp_path)


def test_the_loss_is_the_cross_entropy_of_the_films_that_a_user_has() -> None:
    outputs, wanted = RNG.normal(size=(3, 6)), np.array([[1, 0, 1, 0, 0, 0], [0, 0, 0, 0, 0, 1], [0] * 6], np.uint8)
    batch = {"inputs": jnp.asarray(wanted[::-1].copy()), "targets": jnp.asarray(wanted)}
    shares = np.log(np.exp(outputs) / np.exp(outputs).sum(1, keepdims=True))
    value, weight = Recommendation().score(jnp.asarray(outputs), {**batch, "step": jnp.int32(0)})["loss"]
    assert np.asarray(weight).tolist() == [2, 1, 0]
    np.testing.assert_allclose(value, [-shares[0, [0, 2]].mean(), -shares[1, 5], 0], rtol=1e-5)
    held = np.where(wanted[::-1] > 0, -np.inf, outputs)  # in evaluation the history is out of the race
    value, _ = Recommendation().score(jnp.asarray(outputs), batch)["loss"]
    assert float(value[0]) == pytest.approx(-(held[0] - np.log(np.exp(held[0]).sum()))[[0, 2]].mean(), rel=1e-5)


def test_decay_grows_with_every_rating() -> None:
    outputs = {"rating": jnp.asarray([3.0, 6.0]), "biases": jnp.asarray([1.0, 2.0]), "factors": jnp.asarray([4.0, 0.0])}
    scores = Ratings(bias_decay=0.5, decay=0.25).score(outputs, {"targets": jnp.asarray([4.0, 4.0])})
    assert np.asarray(scores["loss"]).tolist() == [1 + 0.5 + 1, 4 + 1]
    assert np.asarray(scores["mse"]).tolist() == [1, 1]  # a rating of 6 stars is one of 5


def test_baselines_are_scored_on_the_test_split(tmp_path: Path) -> None:
    request = Request(data_dir=files(tmp_path))
    found = Recommendation(top=3).baselines(movielens_histories(request))
    assert set(found) == {"most popular", "EASE"}
    assert set(Ratings().baselines(movielens_ratings(request))) == {"mean of training", "damped biases"}
    assert isinstance(movielens_ratings(request), Splits)
