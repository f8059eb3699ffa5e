# %% [markdown]
# # 12. Reading a report
#
# A run of fdl leaves one page, `report.html`, and everything on it as data. This lesson trains for a few seconds and reads it.

# %%
import json
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt

import fdl

folder = Path(tempfile.mkdtemp()) / "run"
run = fdl.fit("digits_cnn", folder, seed=0, overrides=["steps=4epochs"])
print(sorted(path.name for path in folder.iterdir()))

# %% [markdown]
# **First the baselines.** A figure means nothing alone. What does a model reach that always gives the commonest class?

# %%
print({name: {k: round(v, 3) for k, v in metrics.items()} for name, metrics in run.baselines.items()})
print({name: round(value, 3) for name, value in run.metrics.items()})
assert run.metrics["test/accuracy"] > 0.5 > run.baselines["majority class"]["test/accuracy"]

# %% [markdown]
# **Then the curves.** Training loss far below validation loss: it learns by heart (lesson 6). Both high and flat: rate or model too
# small (lessons 4 and 5). Here the training loss may well be the *higher* one: dropout and augmentation make training harder than
# evaluation, and label smoothing keeps the loss above 0.

# %%
figure, axis = plt.subplots(figsize=(5, 3))
for split in ("train/loss", "eval/loss"):
    points = [(row["step"], row[split]) for row in run.history if split in row]
    axis.plot(*zip(*points, strict=True), "o-", markersize=3, label=split)
axis.set(xlabel="step")
axis.legend()

# %% [markdown]
# **What else the page has**: the confusion matrix (which classes are mistaken for which), the worst mistakes (labels that are wrong are
# often among them), examples as the net is given them, layers with their parameters and FLOPs, and every setting.
#
# **And what keeps you honest**: where the data came from, whether rows stand in two splits, which checkpoint was chosen and by what.

# %%
summary = json.loads((folder / "summary.json").read_text())
print({key: summary[key] for key in ("best_step", "steps", "seed", "state_sha256")})
print("data:", {key: summary["data"][key] for key in ("source", "standin", "leaks")})
assert (folder / "report.html").stat().st_size > 10_000

# %% [markdown]
# **The same run again is the same to the last bit**: `state_sha256` is over every number of the state. A difference between two
# runs is therefore a difference in what they were asked to do, or luck of the seed: `--seeds=5` shows how large that luck is.

# %%
again = fdl.fit("digits_cnn", folder.parent / "again", seed=0, overrides=["steps=4epochs"], report=False)
assert again.summary["state_sha256"] == summary["state_sha256"]

# %% [markdown]
# **Exercises.** (a) Run it with another seed: do the conclusions hold? (b) `--set num_examples=100`: which curve tells you first that
# data are missing? (c) Write an experiment of your own (docs/extending.md) and say, from its report alone, what to try next.
