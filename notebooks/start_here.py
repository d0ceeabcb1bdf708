# ---
# jupyter:
#   jupytext:
#     notebook_metadata_filter: ulm
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
#   ulm:
#     minutes: 1
# ---

# %% [markdown]
# # Start here
#
# ````{admonition} Chapter card
# :class: chapter-card
#
# | | |
# |---|---|
# | **You will** | meet the book's pictures, its landmarks and its one way to call a detector; learn how to run a page again |
# | **You need** | some Python; no mathematics yet |
# | **Time** | 5 minutes to read, under a minute to run |
# | **Computer** | any, no GPU |
# | **Data** | none: the pictures are drawn here |
# ````

# %% [markdown]
# ## The parameters of a notebook
#
# The next cell is the same in every notebook. Change it and run all cells, or leave it and run the notebook with other
# values from outside:
#
# ```bash
# ulm run start_here -p profile smoke -p seed 1
# ```

# %% tags=["parameters"]
profile: str = "laptop"  # smoke, laptop or paper: how much is computed
dataset: str = "auto"  # auto: the paper's data if data_root has it, else its stand-in
data_root: str = ""  # folder that holds real data sets
device: str = "auto"  # auto, cpu, cuda or cuda:N
seed: int = 0  # of everything random
retrain: bool = False  # train from scratch instead of loading what ships with the book

# %% [markdown]
# So is this one: it fixes the seeds, finds the device, and says what it found.

# %% tags=["hide-input"]
import matplotlib.pyplot as plt
import torch

from ulm import datasets, runs

settings = runs.profile(profile)
runs.seed_everything(seed)
where = runs.pick_device(device)
print(
    f"profile {profile}, {runs.device_name(where)}, PyTorch {torch.__version__}, seed {seed}"
)

# %% [markdown]
# ## Pictures with exact landmarks
#
# `ulm` draws the pictures that the book learns from. A data set is a sequence of dictionaries.

# %%
spec = "procedural:faces" if dataset == "auto" else dataset
faces = datasets.load(spec, split="test", size=128, limit=8)
face = faces[0]
{
    key: tuple(face[key].shape)
    for key in ("image", "landmarks", "visible", "box", "mask")
}

# %% [markdown]
# `image` is red, green and blue in [0, 1]. `landmarks` are 68 points, x and y in pixels of this image; `visible` says
# which of them the head itself hides. Here are eight faces with their landmarks, filled where they can be seen.

# %% mystnb={"figure": {"caption": "Eight drawn faces, their 68 landmarks", "name": "fig-start-faces"}, "image": {"alt": "Eight computer-drawn heads, each with 68 points on jaw, brows, eyes, nose and mouth"}} tags=["hide-input"]
figure, axes = plt.subplots(2, 4, figsize=(9, 4.6), layout="constrained")
for axis, face in zip(axes.flat, faces, strict=True):
    height, width = face["image"].shape[-2:]
    axis.imshow(face["image"].permute(1, 2, 0), extent=(0, width, height, 0))
    seen, points = face["visible"].bool(), face["landmarks"]
    axis.scatter(
        *points[seen].T, s=5, color="#ffffff", edgecolor="#0072b2", linewidth=0.8
    )
    axis.scatter(
        *points[~seen].T, s=8, facecolor="none", edgecolor="#d55e00", linewidth=0.8
    )
    axis.set_axis_off()
plt.show()

# %% [markdown]
# A detector is not shown these points. It sees pictures only, and has to find points of its own.
#
# ## One way to call every detector
#
# Detectors follow scikit-learn's manners: settings go to the constructor, `fit` learns from pictures, `predict` gives
# points. Here are a few steps of training, far too few to learn anything: they show the call, not the result.

# %%
from ulm import methods

detector = methods.METHODS["imm"](
    n_landmarks=10, image_size=32, width=8, loss="l2", batch_size=8, steps=4, seed=seed
)
photos = datasets.load("procedural:faces", split="train", size=32, limit=32)
detector.fit(photos, progress=False)
points = detector.predict(faces.batch(range(8))["image"])
print(tuple(points.shape), points.dtype)

# %% [markdown]
# Eight pictures, ten points each, x and y in pixels of the pictures handed in, whatever size the network works at. The
# chapters on IMM train in earnest, and load what has been trained before.
#
# ## Is it any good?
#
# The ten points have no names, so there is nothing to compare them with yet. [The protocol](../book/protocol.md) fits a
# linear map from them to annotated points on some labelled pictures, and measures its error on others. Two errors that
# need no training come first in every table. The first is that of the *mean shape*: predict the same average face for
# every picture.

# %%
fit = datasets.load(
    "procedural:faces", split="train", size=64, limit=settings["labels"]
)
test = datasets.load("procedural:faces", split="test", size=64, limit=32)
labels, truth = (data.batch(range(len(data)))["landmarks"] for data in (fit, test))
mean_shape = labels.mean(0)  # (68, 2)
eyes = (truth[:, 36] - truth[:, 45]).norm(
    dim=-1
)  # (32,) outer eye corner to eye corner
error = (truth - mean_shape).norm(dim=-1) / eyes[:, None]  # (32, 68)
print(
    f"mean shape: {100 * error.mean():.1f} % of the distance of the outer eye corners"
)

# %% [markdown]
# Everything else has to be better than this number. The second is the error of the network before training; you find
# both beside every result.
#
# ```{admonition} Exercise
# :class: exercise
# The error above is an average over 68 landmarks. Which of them does the mean shape predict worst, and why?
# ```
#
# ````{dropdown} Solution
# ```python
# error.mean(0).argsort(descending=True)[:5] + 1
# ```
# The worst are on the jaw, whose ends lie farthest from the centre of the crop: turning the head, or another shape of
# face, moves them most.
# ````
#
# ## Run it again
#
# | You want to | Do |
# |---|---|
# | read and change a notebook | `make lab` |
# | run this page with another seed | `ulm run start_here -p seed 1` |
# | build the whole book | `make book` |
# | build it with the papers' sizes on a GPU | `make book PROFILE=paper` |
# | see what a command does | `ulm --help`, `ulm fit --help` |
#
# ## You have seen
#
# - a data set: pictures, exact landmarks, visibility, all in pixels with the origin in the corner;
# - a detector: `fit`, then `predict`;
# - the error that a method must beat.
