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
#     minutes: 2
# ---

# %% [markdown]
# # Data and protocol
#
# ````{admonition} Chapter card
# :class: chapter-card
#
# | | |
# |---|---|
# | **You will** | see the pictures that stand in for the papers' data sets, and what one item of a data set holds; turn one picture into a training pair by two random warps; compute the forward and the backward error by hand; see why the regressor, the normaliser and the origin of the coordinates belong to a number |
# | **You need** | [Start here](start_here.ipynb); least squares |
# | **Time** | 30 minutes to read, 2 minutes to run |
# | **Computer** | any, no GPU; 1 GB of memory |
# | **Data** | drawn here: 1,500 pictures of 64 × 64 pixels, kept in a cache |
# ````
#
# Papers on unsupervised landmarks are compared by one number in percent. This chapter takes that number apart, first the
# pictures that it is measured on, then the measuring. [The protocol](../book/protocol.md) is the same in short, to look
# things up.

# %% tags=["parameters"]
profile: str = "laptop"  # smoke, laptop or paper: how much is computed
dataset: str = "auto"  # auto: the paper's data if data_root has it, else its stand-in
data_root: str = ""  # folder that holds real data sets
device: str = "auto"  # auto, cpu, cuda or cuda:N
seed: int = 0  # of everything random
retrain: bool = False  # nothing is trained in advance in this chapter

# %% tags=["hide-input"]
import json
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown
from PIL import Image

from ulm import chapters, datasets, evaluation, figures, geometry, methods, runs
from ulm.errors import InputError

settings = runs.profile(profile)
runs.seed_everything(seed)
where = runs.pick_device(device)
print(
    f"profile {profile}, {runs.device_name(where)}, PyTorch {torch.__version__}, seed {seed}"
)

# %% [markdown]
# ## One item
#
# A data set has a length and gives items by index. An item is a dictionary.

# %%
faces = chapters.data(
    dataset, data_root, paper="mafl", standin="procedural:faces", profile=profile
)
item = faces.test[0]
pd.DataFrame(
    [
        (key, str(value.dtype), tuple(value.shape))
        for key, value in item.items()
        if isinstance(value, torch.Tensor)
    ],
    columns=["key", "type", "shape"],
).set_index("key")

# %% [markdown]
# The contract is short, and every data set of the book keeps it: drawn scenes, labelled folders, folders of photographs.
#
# - `image`: red, green, blue in [0, 1].
# - `landmarks`: $x$ and $y$ in pixels of this image. The origin is the corner of the top-left pixel, so the *centre* of
#   that pixel is at (0.5, 0.5). A landmark that is not known is NaN in both coordinates.
# - `visible`: false where the object itself hides the point, or where it is not known.
# - `box`, `mask`, `yaw`, `subject`, `video`, `frame`: where they are known.


# %%
def check_item(item: dict) -> None:
    """The contract, as far as it can be checked on one item."""
    image, points, visible = item["image"], item["landmarks"], item["visible"]
    assert (image.dtype, image.shape[0]) == (torch.float32, 3)
    assert 0 <= image.min() <= image.max() <= 1
    assert (points.dtype, points.shape) == (torch.float32, (len(visible), 2))
    assert visible.dtype == torch.bool
    assert not visible[points.isnan().any(-1)].any()  # what is unknown is not visible


for index in range(8):
    check_item(faces.test[index])

# %% [markdown]
# Networks prefer coordinates that do not depend on the size of the image. The book's normalised coordinates put the
# *edges* of an image of width $W$ at $-1$ and $1$:
#
# ```{math}
# :label: eq-normalised
# u = \frac{2p}{W} - 1, \qquad p = \frac{(u + 1)\, W}{2} .
# ```

# %%
corner, first_pixel, opposite = [0.0, 0.0], [0.5, 0.5], [128.0, 128.0]
pixels = torch.tensor([corner, first_pixel, opposite])
normalised = geometry.to_normalised(pixels, 128)
assert torch.allclose(normalised[:, 0], torch.tensor([-1.0, -1 + 1 / 128, 1.0]))
assert torch.allclose(geometry.to_pixels(normalised, 128), pixels)

# %% [markdown]
# ## Three scenes
#
# The data sets of the papers cannot be passed on. So `ulm` draws its own: three-dimensional heads in the 68-point scheme
# of iBUG {cite:p}`sagonas2013`, whose landmarks are exact because they are points of the surface that is drawn. A
# picture depends on (scene, split, index) and on nothing else; the size changes its resolution only.
#
# `procedural:faces` is cropped like aligned CelebA, and stands in for CelebA and MAFL ({numref}`fig-data-faces`).

# %% mystnb={"figure": {"caption": "procedural:faces, with its 68 landmarks", "name": "fig-data-faces"}, "image": {"alt": "Sixteen drawn heads seen mostly from the front, each with lines along jaw, brows, eyes, nose and mouth"}} tags=["hide-input"]
scenes = {}
for name in ("faces", "faces-posed", "faces-wild"):
    data = datasets.load(f"procedural:{name}", "test", size=128, limit=16)
    scenes[name] = data.batch(range(16)) | {"info": data.info}


def gallery(name):
    shown = scenes[name]
    return figures.annotated_images(
        shown["image"], shown["landmarks"], shown["visible"], shown["info"].skeleton
    )


gallery("faces")

# %% [markdown]
# `procedural:faces-posed` turns the heads through all yaw angles and stands in for AFLW ({numref}`fig-data-posed`).
# Landmarks that the head itself hides are drawn as small hollow squares: their place is known, but `visible` is false.

# %% mystnb={"figure": {"caption": "procedural:faces-posed, hidden points as squares", "name": "fig-data-posed"}, "image": {"alt": "Sixteen drawn heads, many in profile; points on the far side of the head are hollow squares"}} tags=["hide-input"]
gallery("faces-posed")

# %% [markdown]
# `procedural:faces-wild` puts heads anywhere, as large as the protocol of CelebA in the wild wants them, which leaves out
# pictures whose face takes less than 30 % ({numref}`fig-data-wild`). Nothing is aligned here, and a detector has to find
# the face first.

# %% mystnb={"figure": {"caption": "procedural:faces-wild, free scale and place", "name": "fig-data-wild"}, "image": {"alt": "Sixteen drawn heads of different sizes at different places of the picture, with their landmarks"}} tags=["hide-input"]
gallery("faces-wild")

# %% tags=["hide-input"]
share = {
    name: 100 * float(scene["visible"].float().mean()) for name, scene in scenes.items()
}
Markdown(
    "Of the landmarks in the pictures above, the head leaves "
    + ", ".join(f"{value:.0f} % visible in `{name}`" for name, value in share.items())
    + "."
)

# %% [markdown]
# Because the yaw of each head is known, one can ask for a sweep from one profile to the other
# ({numref}`fig-data-sweep`). Later chapters break errors down by it. A positive yaw turns the face to the image's right.

# %% mystnb={"figure": {"caption": "From one profile to the other", "name": "fig-data-sweep"}, "image": {"alt": "Seven different drawn heads ordered by yaw, from facing left through frontal to facing right"}} tags=["hide-input"]
posed = chapters.data(
    "procedural:faces-posed", data_root, paper="aflw", standin="", profile=profile
).test
yaws = np.array(posed.column("yaw"))
nearest = [
    int(np.abs(yaws - wanted).argmin()) for wanted in (-80, -55, -25, 0, 25, 55, 80)
]
sweep = datasets.load("procedural:faces-posed", "test", size=128).batch(nearest)
figures.annotated_images(
    sweep["image"],
    sweep["landmarks"],
    sweep["visible"],
    scenes["faces-posed"]["info"].skeleton,
    labels=[f"{round(yaws[i])}°" for i in nearest],
)

# %% [markdown]
# ## Your own pictures
#
# Two more sources keep the same contract. `coco:FOLDER` is a folder with `images/` and one file in the COCO keypoints
# format. Writing one takes a dozen lines; here are six drawn faces as such a folder.


# %%
def write_coco(folder: Path, items: list[dict], names: tuple[str, ...]) -> None:
    """Save images and landmarks as a labelled folder."""
    (folder / "images").mkdir(parents=True)
    images, annotations = [], []
    for i, item in enumerate(items):
        pixels = (
            (item["image"] * 255).round().byte().permute(1, 2, 0).numpy()
        )  # (H, W, 3)
        Image.fromarray(pixels).save(folder / "images" / f"{i:04d}.png")
        shape = {"height": pixels.shape[0], "width": pixels.shape[1]}
        images.append(
            {"id": i, "file_name": f"{i:04d}.png", "subject": item["subject"], **shape}
        )
        v = 1.0 + item["visible"]  # 0: unknown, 1: hidden, 2: visible
        triples = torch.cat([item["landmarks"], v[:, None]], dim=1)  # (L, 3)
        annotations.append(
            {
                "id": i,
                "image_id": i,
                "category_id": 1,
                "keypoints": triples.flatten().tolist(),
            }
        )
    categories = [{"id": 1, "name": "face", "keypoints": list(names)}]
    content = {"categories": categories, "images": images, "annotations": annotations}
    (folder / "keypoints.json").write_text(json.dumps(content))


drawn = datasets.load("procedural:faces", "test", size=128, limit=6)
with tempfile.TemporaryDirectory() as temporary:
    write_coco(Path(temporary) / "faces", list(drawn), drawn.info.landmark_names)
    labelled = datasets.load(f"coco:{temporary}/faces", split="all", size=128)
    unlabelled = datasets.load(
        f"folder:{temporary}/faces/images", split="all", size=128
    )
    back, photographs = labelled.batch(range(6)), unlabelled.batch(range(6))

check_item({key: back[key][0] for key in ("image", "landmarks", "visible")})
print("labelled folder:  ", tuple(back["image"].shape), tuple(back["landmarks"].shape))
print(
    "folder of images: ",
    tuple(photographs["image"].shape),
    tuple(photographs["landmarks"].shape),
)

# %% [markdown]
# Nothing is lost on the way but what the eight bits of a PNG round off, and a folder without labels has items with no
# landmarks.

# %%
wanted = drawn.batch(range(6))
order = np.argsort([int(subject) for subject in back["subject"]])
assert torch.allclose(back["landmarks"][order], wanted["landmarks"], atol=1e-3)
assert (back["image"][order] - wanted["image"]).abs().max() <= 0.5 / 255 + 1e-6

# %% [markdown]
# What cannot be read is refused with one sentence that says what was found, what was expected and what to do.

# %%
try:
    datasets.load("coco:no-such-folder")
except InputError as error:
    print(error)

# %% [markdown]
# ## Pairs from one picture
#
# IMM learns from pairs: a source $\mathbf{x}$ and a target $\mathbf{x}'$ that show the same object in another geometry. Two
# frames of a video are such a pair. Where there are only still pictures, {cite:t}`jakab2018` make one by random warps of a
# single picture. The warps are thin-plate splines {cite:p}`duchon1977`,
#
# ```{math}
# :label: eq-spline
# g(u) = A u + t + \sum_{c} w_c\, U(\lVert u - c \rVert), \qquad U(r) = r^2 \log r^2 ,
# ```
#
# an affine map and a bending that is spread from a grid of 10 × 10 control points $c$. In code, for a set of places:


# %%
def spline(u, w, A, t, c):
    """Equation above: places u (P, 2), w (C, 2), A (2, 2), t (2,), control points c."""
    squared = (u[:, None] - c).square().sum(-1).clamp_min(1e-8)  # |u - c|^2, (P, C)
    return u @ A.T + t + (squared * squared.log()) @ w  # U(r) = r^2 log r^2


random = torch.Generator().manual_seed(seed)
warp = geometry.draw_warps(1, geometry.RELEASE_SOURCE, random)
w, A, t = warp.coefficients[0].split([100, 2, 1])
places = 2 * torch.rand(50, 2, generator=random) - 1
assert torch.allclose(
    spline(places, w, A.T, t, geometry.control_points(10)),
    warp(places[None])[0],
    atol=1e-5,
)

# %% [markdown]
# $g$ takes a place of the *output* to the place of the *input* that is shown there. So no inverse is needed: the warped
# image at $u$ is the input at $g(u)$, and a landmark that is found at $u$ in the warped image belongs to $g(u)$ in the
# input. It is easily checked with a picture whose red and green say where each pixel was.

# %%
grid = geometry.pixel_grid(64).permute(2, 0, 1)[
    None
]  # (1, 2, 64, 64): x and y of each pixel
shown = warp.sample(grid)
at = torch.tensor(
    [[[0.0, 0.0], [0.3, -0.2], [-0.25, 0.35]]]
)  # three places of the output
seen = torch.nn.functional.grid_sample(shown, at[:, None], align_corners=False)[
    0, :, 0
].T  # what the output shows
assert torch.allclose(seen, warp(at)[0], atol=2e-3)

# %% [markdown]
# The coefficients themselves are random, as in the authors' code. Two sets of deviations are used, a mild one for the
# target and a strong one for the source. What do they amount to? We draw many warps with the bending alone, and look at
# how far the centre and a corner of a picture of 128 pixels move.


# %%
def bending(scale: geometry.WarpScale, n: int = 4000) -> list[float]:
    """How far the bending moves centre and corner: deviation, pixels of 128."""
    random = torch.Generator().manual_seed(seed)
    only = geometry.WarpScale(bending=scale.bending, bending_half=scale.bending_half)
    places = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    moved = geometry.draw_warps(n, only, random)(places.expand(n, 2, 2)) - places
    return (moved * 64).std(0).mean(-1).tolist()


moves = pd.DataFrame(
    {
        "target": bending(geometry.RELEASE_TARGET),
        "source": bending(geometry.RELEASE_SOURCE),
    },
    index=["centre (pixels)", "corner (pixels)"],
)
moves.round(1)

# %% tags=["hide-input"]
Markdown(
    f"At the centre, where the face is, the target bends by {moves.target.iloc[0]:.1f} pixels only, the source by "
    f"{moves.source.iloc[0]:.1f}; at the corners it is {moves.target.iloc[1]:.0f} and {moves.source.iloc[1]:.0f}. Most of "
    "the *warp* is therefore an affine motion that grows towards the borders."
)

# %% [markdown]
# **Two readings.** The paper warps one picture twice, independently: $\mathbf{x} = g_1 \mathbf{x}_0$,
# $\mathbf{x}' = g_2 \mathbf{x}_0$. The authors' code composes: $\mathbf{x}' = g_2 \mathbf{x}_0$ and then
# $\mathbf{x} = g_1 \mathbf{x}'$, so that the source is warped by both ({numref}`fig-data-warps`). `IMM` takes either,
# by its setting `composed`.
#
# What lies outside the picture is black, and no detector should have to explain it. So the paper discounts these regions
# in the loss. The code goes further and lets *all* borders count less, by a weight that falls to zero within 30 pixels of
# the edge of 128 and is warped with the target (last column).

# %% mystnb={"figure": {"caption": "One picture, two readings of the pair", "name": "fig-data-warps"}, "image": {"alt": "Three faces with a painted grid: the original, the mildly bent target, two strongly bent sources, and a weight that is white in the middle and black at the border"}} tags=["hide-input"]
original = figures.with_grid(scenes["faces"]["image"][:3])
random = torch.Generator().manual_seed(seed + 5)
g2 = geometry.draw_warps(3, geometry.RELEASE_TARGET, random)
g1 = geometry.draw_warps(3, geometry.RELEASE_SOURCE, random)
target = g2.sample(original)
weight = g2.sample(geometry.border_mask(128).expand(3, -1, -1, -1))
figures.warps(
    {
        "original $x_0$": original,
        "target $x' = g_2 x_0$": target,
        "source, code: $g_1 x'$": g1.sample(target),
        "source, paper: $g_1 x_0$": g1.sample(original),
        "weight of pixels": weight,
    }
)

# %%
strip = geometry.border_mask(128)[0, 0, 64]  # a row through the middle
assert abs(strip.mean() - 0.6875) < 1e-4
assert abs(geometry.border_mask(128).mean() - 0.4727) < 1e-4
print(
    f"mean weight {geometry.border_mask(128).mean():.4f}: less than half of the picture counts"
)

# %% [markdown]
# ## What the error is divided by
#
# An error in pixels means little: pictures have any size, and a face any size in them. So each distance is divided by a
# length of the same picture, the *normaliser* $d_i$ ({numref}`fig-data-normaliser`).

# %% mystnb={"figure": {"caption": "Four normalisers, drawn where they are measured", "name": "fig-data-normaliser"}, "image": {"alt": "Four faces; on each an orange line or box shows the length: between outer eye corners, between pupils, box round the landmarks, whole image"}} tags=["hide-input"]
names = ("outer-eye-corners", "pupils", "box", "image")
shown = scenes["faces"]
figures.normaliser(
    shown["image"][:4],
    shown["landmarks"][:4],
    [(shown["info"], name) for name in names],
)

# %%
truth_test = evaluation.to_array(faces.test.landmarks)  # (N, L, 2)
truth_fit = evaluation.to_array(faces.fit.landmarks)  # (n, L, 2)
size, info = faces.test.size, faces.test.info
norm = evaluation.normalising_lengths(
    truth_test, info, size
)  # (N,), the data set's own: outer eye corners
known = [
    name
    for name in names
    if info.name.startswith("procedural") or name in ("box", "image")
]
lengths = {
    name: evaluation.normalising_lengths(truth_test, info, size, name).mean()
    for name in known
}
pd.DataFrame(
    {
        "mean length": lengths,
        "an error of one pixel": {k: 100 / v for k, v in lengths.items()},
    }
).round(2)

# %% [markdown]
# The same landmarks get a smaller number under a longer normaliser. Which one was used is part of a result.
#
# ## Forward: do the discovered landmarks tell where the annotated ones are?
#
# Let $u_i \in \mathbb{R}^{K \times 2}$ be discovered and $g_i \in \mathbb{R}^{L \times 2}$ annotated in picture $i$. A
# linear map $R$ is fitted on labelled pictures; on the $N$ test pictures
#
# ```{math}
# :label: eq-nme
# \mathrm{NME} = \frac{100\,\%}{N} \sum_{i=1}^{N} \frac{1}{L} \sum_{l=1}^{L} \frac{\lVert R(u_i)_l - g_{il} \rVert}{d_i} .
# ```
#
# It is a mean of *distances*, although the papers call it MSE. By hand: one picture, two landmarks, one of them predicted
# 3 pixels too far right and 4 too low, the other exactly, the eyes 50 pixels apart.

# %%
truth, predicted = [[[10.0, 20.0], [60.0, 20.0]]], [[[13.0, 24.0], [60.0, 20.0]]]
assert evaluation.nme(predicted, truth, norm=[50.0]) == 100 * (5 + 0) / 2 / 50 == 5.0

# %% [markdown]
# For the map, IMM takes least squares without intercept, $W = \arg\min_W \lVert X W - Y \rVert^2$, where a row of $X$
# holds the $2K$ numbers of one picture and a row of $Y$ the $2L$ numbers of its annotation. This is the whole protocol:


# %%
def linear_nme(x_fit, y_fit, x_test, y_test, norm):
    """Fit y = x W on labelled pictures; error in percent on others. Points (n, K, 2)."""
    flat = [
        points.reshape(len(points), -1) for points in (x_fit, y_fit, x_test)
    ]  # (n, 2 K)
    W = np.linalg.lstsq(flat[0], flat[1], rcond=None)[0]  # (2 K, 2 L)
    predicted = (flat[2] @ W).reshape(y_test.shape)
    distances = np.linalg.norm(predicted - y_test, axis=-1)  # (N, L)
    return 100 * (distances.mean(1) / norm).mean()


# %% [markdown]
# To try it we need a detector of which we know everything. So we pretend one: six landmarks that sit near six annotated
# points, each a little beside it and with some noise.


# %%
def pretend(truth, noise=size / 64, seed=0):
    """Six landmarks near chin, nose, eye and mouth corners; shifted and noisy."""
    chosen = truth[:, [8, 30, 36, 45, 48, 54]] if truth.shape[1] == 68 else truth[:, :6]
    random = np.random.default_rng(seed)
    shift = random.normal(
        0, size / 16, (1, chosen.shape[1], 2)
    )  # the same in all pictures
    return (
        chosen
        + shift
        + np.random.default_rng([seed, len(truth)]).normal(0, noise, chosen.shape)
    )


steady_fit, steady_test = pretend(truth_fit), pretend(truth_test)
forward = linear_nme(steady_fit, truth_fit, steady_test, truth_test, norm)
report = evaluation.evaluate(
    steady_fit,
    truth_fit,
    steady_test,
    truth_test,
    norm,
    size=size,
    regressor="imm",
    labels=None,
)
assert np.isclose(forward, report.forward_nme)
print(f"forward NME {forward:.2f} %, mean shape {report.mean_shape_nme:.2f} %")

# %% [markdown]
# `evaluation.evaluate` is used from here on; it gives the same number. The shift of the landmarks did no harm: a landmark
# need not sit *on* an annotated point, it only has to move with the object.
#
# ## Backward: do the annotated landmarks tell where the discovered ones are?
#
# The forward error forgives much. {cite:t}`sanchez2019` therefore go the other way as well: a second map $R'$ predicts the
# *discovered* landmarks from the *annotated* ones. It is the same function with its arguments exchanged.

# %%
backward = linear_nme(truth_fit, steady_fit, truth_test, steady_test, norm)
assert np.isclose(backward, report.backward_nme)
print(f"backward NME {backward:.2f} %")

# %% mystnb={"figure": {"caption": "The two directions on one face", "name": "fig-data-directions"}, "image": {"alt": "Two copies of a face: on the left circles joined to crosses at annotated points, on the right coloured landmarks joined to crosses"}} tags=["hide-input"]
imm_regressor = evaluation.REGRESSORS["imm"].forward
there = imm_regressor.fit(steady_fit, truth_fit, size).predict(steady_test)
here = imm_regressor.fit(truth_fit, steady_fit, size).predict(truth_test)
example = int(
    np.argsort(report.per_image)[len(truth_test) * 3 // 4]
)  # worse than three quarters of the pictures
figures.forward_backward(
    steady_test[example],
    truth_test[example],
    there[example],
    here[example],
    faces.test[example]["image"],
)

# %% [markdown]
# In {numref}`fig-data-directions` a segment is an error. Now two detectors that are bad in opposite ways. The first has a
# seventh landmark that jumps about at random. The second has six landmarks that hardly move from picture to picture. Here the
# regressor has an intercept (`inter-intra`, see below), so that it may predict a constant.


# %%
def jumping(truth):
    """The steady landmarks, and one that is anywhere."""
    anywhere = np.random.default_rng([1, len(truth)]).uniform(
        0, size, (len(truth), 1, 2)
    )
    return np.concatenate([pretend(truth), anywhere], axis=1)


def frozen(truth):
    """Six landmarks near the middle of the picture, whatever it shows."""
    return size / 2 + np.random.default_rng([2, len(truth)]).normal(
        0, size / 500, (len(truth), 6, 2)
    )


rows = {}
for name, detector in {
    "steady": pretend,
    "one landmark jumps": jumping,
    "all frozen": frozen,
}.items():
    result = evaluation.evaluate(
        detector(truth_fit),
        truth_fit,
        detector(truth_test),
        truth_test,
        norm,
        size=size,
        labels=None,
    )
    rows[name] = {
        "forward": result.forward_nme,
        "backward": result.backward_nme,
        "warnings": len(result.warnings),
    }
directions = pd.DataFrame(rows).T.astype({"warnings": int})
directions.round(2)

# %% tags=["hide-input"]
Markdown(
    f"The landmark that jumps costs nothing forward ({directions.forward.iloc[1]:.2f} % instead of "
    f"{directions.forward.iloc[0]:.2f} %): the regressor gives it the weight zero. Backward it is found out, "
    f"{directions.backward.iloc[1]:.1f} % instead of {directions.backward.iloc[0]:.1f} %. The frozen landmarks are near perfect "
    f"backward ({directions.backward.iloc[2]:.2f} %), since what does not move is easily predicted; forward they are no better "
    f"than the mean shape ({directions.forward.iloc[2]:.1f} % against {report.mean_shape_nme:.1f} %). One needs both numbers. "
    "The last column counts the warnings of `evaluation.collapse`, which looks for landmarks that lie on each other or "
    "stand still."
)

# %% [markdown]
# ## Which regressor
#
# Most papers have a regressor of their own. Sanchez and Inter-Intra use ridge regression on centred data, with a penalty
# that is scaled by the largest entry of the Gram matrix:
#
# ```{math}
# :label: eq-ridge
# W = \left(\bar X^\top \bar X + \lambda\, m\, I\right)^{-1} \bar X^\top \bar Y, \qquad
# m = \max_{ab}\, (\bar X^\top \bar X)_{ab}, \qquad \lambda = 10^{-4} .
# ```


# %%
def ridge(x, y, reg=1e-4):
    """Centred ridge: returns W (2 K, 2 L) and the offset (2 L,) of y = x W + offset."""
    mean_x, mean_y = x.mean(0), y.mean(0)
    gram = (x - mean_x).T @ (x - mean_x)
    penalty = reg * gram.max() * np.eye(len(gram))  # lambda m I
    W = np.linalg.solve(gram + penalty, (x - mean_x).T @ (y - mean_y))
    return W, mean_y - mean_x @ W


x, y = (
    points.reshape(len(points), -1) / size - 0.5 for points in (steady_fit, truth_fit)
)
W, offset = ridge(x, y)
ours = (
    (steady_test.reshape(len(steady_test), -1) / size - 0.5) @ W + offset + 0.5
) * size
theirs = (
    evaluation.REGRESSORS["inter-intra"]
    .forward.fit(steady_fit, truth_fit, size)
    .predict(steady_test)
)
assert np.allclose(ours.reshape(theirs.shape), theirs, atol=1e-5)

# %% [markdown]
# Here are the steady landmarks under each paper's regressor, fitted on few labelled pictures and on many.

# %%
rows = {}
for name, regression in evaluation.REGRESSORS.items():
    rows[name] = {"whose": regression.source}
    for n in (8, settings["labels"]):
        result = evaluation.evaluate(
            steady_fit,
            truth_fit,
            steady_test,
            truth_test,
            norm,
            size=size,
            regressor=name,
            labels=n,
            seed=seed,
        )
        rows[name][f"{result.labels} labels"] = result.forward_nme
regressors = pd.DataFrame(rows).T
regressors.style.format("{:.2f}", subset=list(regressors)[1:])

# %% tags=["hide-input"]
spread_few, spread_many = (
    regressors[column].max() - regressors[column].min()
    for column in list(regressors)[1:]
)
Markdown(
    f"The same landmarks, the same labels. With many labels the regressors differ by {spread_many:.1f} points between the best "
    f"and the worst, with few by {spread_few:.1f}. Differences between published methods are often smaller."
)

# %% [markdown]
# **The origin.** Without an intercept a fit depends on where the origin is. IMM's is the corner of the image, in
# coordinates from 0 to 128; the same least squares in coordinates from $-1$ to $1$ is another regressor. Few landmarks show
# it best. We keep two of the six.

# %%
two_fit, two_test = steady_fit[:, :2], steady_test[:, :2]


def error_of(regressor):
    """Forward error of two landmarks under a regressor."""
    return evaluation.evaluate(
        two_fit,
        truth_fit,
        two_test,
        truth_test,
        norm,
        size=size,
        regressor=regressor,
        labels=None,
    ).forward_nme


corner, centre = (
    error_of(evaluation.LeastSquares("corner", 128)),
    error_of(evaluation.LeastSquares("centre")),
)
with_intercept = [
    error_of(evaluation.LeastSquares(origin, intercept=True))
    for origin in ("corner", "centre")
]
assert not np.isclose(corner, centre)  # the origin matters without an intercept
assert np.isclose(*with_intercept)  # and not with one
print(
    f"no intercept: origin in the corner {corner:.2f} %, in the centre {centre:.2f} %"
)
print(
    f"intercept:    origin in the corner {with_intercept[0]:.2f} %, in the centre {with_intercept[1]:.2f} %"
)

# %% [markdown]
# ## Which pictures are labelled
#
# The regressor sees $n$ labelled pictures, drawn at random several times. `label_subsets` draws them such that a smaller
# subset is the beginning of a larger one, and the same seed gives the same pictures to every method.

# %%
total = len(truth_fit)
few, more = (
    evaluation.label_subsets(total, 5, repeats=10, seed=seed),
    evaluation.label_subsets(total, 10, 10, seed),
)
assert all((small == large[:5]).all() for small, large in zip(few, more, strict=True))
efficiency = evaluation.sample_efficiency(
    steady_fit,
    truth_fit,
    steady_test,
    truth_test,
    norm,
    ns=(1, 5, 10, 100, None),
    seed=seed,
    size=size,
)
efficiency[["n", "nme", "std", "mean_shape"]].round(2)

# %% [markdown]
# With fewer pictures than unknowns, $n < 2K$, the least-squares problem has many solutions; everybody takes the one of
# least norm, and so do we. That is why even a single labelled picture gives a finite error.
#
# ## What to compare with
#
# Three baselines stand beside every error in this book.
#
# - **mean shape**: the average of the labels, whatever the picture shows;
# - **untrained network**: the detector before training, under the same regressor. Random convolutions already tell
#   something about where things are;
# - **supervised, same labels**: a network trained on just the labelled pictures that the regressor was given.

# %%
untrained = methods.IMM(
    **{**settings["imm"], "n_landmarks": 10, "seed": seed, "device": device}
).untrained()
supervised = evaluation.SupervisedBaseline(
    seed=seed, device=str(where), steps=400 if profile != "smoke" else 5
)
baselines = evaluation.evaluate_detector(
    untrained,
    faces.test,
    faces.fit,
    labels=settings["labels"],
    repeats=1,
    seed=seed,
    untrained=False,
    supervised=supervised,
)
table = {
    "mean shape": baselines.mean_shape_nme,
    "untrained network": baselines.forward_nme,
    "supervised, same labels": baselines.supervised_nme,
}
pd.Series(table, name="forward NME (%)").round(2).to_frame()

# %% tags=["hide-input"]
Markdown(
    f"On `{faces.name}`, {baselines.points} landmarks and {baselines.labels} labels, the mean shape has "
    f"{baselines.mean_shape_nme:.1f} %. An untrained network under the regressor has {baselines.forward_nme:.1f} %: whoever "
    "reports less than the mean shape has not yet shown that anything was *learnt*. A network that learns from "
    f"the same {baselines.labels} labels has {baselines.supervised_nme:.1f} %, which is what a method without labels competes "
    "with when labels are few."
)

# %% [markdown]
# ## Exercises
#
# ```{admonition} Exercise 1
# :class: exercise
# The three annotated points of a toy object are predicted 1, 2 and 6 pixels off; its normaliser is 30 pixels. In a second
# picture all three are 3 pixels off, and the normaliser is 60. What is the NME?
# ```
#
# ````{dropdown} Solution
# First picture: mean distance 3 pixels, 10 %. Second: 3 pixels, 5 %. Together 7.5 %.
# ```python
# distances, norm = np.array([[1, 2, 6], [3, 3, 3]]), np.array([30, 60])
# 100 * (distances.mean(1) / norm).mean()
# ```
# ````
#
# ```{admonition} Exercise 2
# :class: exercise
# The last row of Table 1 in {cite:t}`jakab2018` but one is *w/ bias*: the same landmarks, learnt on VoxCeleb, with an
# intercept in the regressor, have 3.63 % instead of 3.94 % on MAFL. Why does the intercept help *there*, and hardly
# when the landmarks were learnt on CelebA? Try `regressor="imm-bias"` with the steady landmarks after adding the same
# shift of 5 pixels to every landmark of the *test* pictures alone.
# ```
#
# ````{dropdown} Solution
# An intercept takes up a constant offset between landmarks and annotation. A fit without one can express it only through
# landmarks that hardly move, which play the part of a constant. With many landmarks such ones are found, and the intercept
# adds little; after a change of domain fewer of them are reliable. A shift of the test pictures alone hurts both
# regressors: an intercept is fitted on the labelled pictures and cannot know of it.
# ````
#
# ```{admonition} Exercise 3
# :class: exercise
# Change `ridge` so that the penalty is $\lambda I$, without $m$, and evaluate with 10 labels. How far is the result from the
# published regressor's?
# ```
#
# ````{dropdown} Solution
# Replace `gram.max()` by 1. In coordinates of a fraction of the image, the entries of the Gram matrix of 10 pictures are of
# the order of 0.01, so the penalty becomes a hundred times stronger, and the fit is pulled towards the mean shape.
# ````
#
# ## You have seen
#
# - ✓ what an item of a data set holds, and three scenes that stand in for the papers' data;
# - ✓ how one picture becomes a training pair, in the paper's reading and in that of the code;
# - ✓ the forward and the backward error, by hand and by `evaluation.evaluate`, and detectors that cheat one of them;
# - ✓ that normaliser, regressor, origin and label subsets belong to a number, and three baselines to compare it with.
#
# Run it again: `ulm run notebooks/data_and_protocol -p profile paper -p data_root DATA`. Next:
# [IMM, step by step](imm_method.ipynb).
