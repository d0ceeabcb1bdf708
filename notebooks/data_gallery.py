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
#     minutes: 3
# ---

# %% [markdown]
# # A gallery of stand-ins
#
# ````{admonition} Chapter card
# :class: chapter-card
#
# | | |
# |---|---|
# | **You will** | see, for every data set of the four papers, the scene that stands in for it, with its exact landmarks; read how the real one is got, split and measured; find how far the mean shape alone gets on each |
# | **You need** | [Data and protocol](data_and_protocol.ipynb) |
# | **Time** | 15 minutes to read, 3 minutes to run |
# | **Computer** | any, no GPU; 1 GB of memory |
# | **Data** | drawn here: some hundred pictures of each scene, kept in a cache |
# ````
#
# The four papers were measured on fourteen sets of photographs and films. None can be passed on, most need a signed form, and some
# cannot be had any more. So the book draws a stand-in for each: it runs anywhere, and its landmarks are exact. Whoever has the real data
# names its folder instead, and every chapter then runs on it: `dataset="auto"` takes what it finds in `data_root`.

# %% tags=["parameters"]
profile: str = "laptop"  # smoke, laptop or paper: how much is computed
dataset: str = "auto"  # not used here: every data set has its turn
data_root: str = ""  # folder that holds real data sets
device: str = "auto"  # auto, cpu, cuda or cuda:N
seed: int = 0  # of everything random
retrain: bool = False  # nothing is trained in this chapter

# %% tags=["hide-input"]
import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown, display

from ulm import datasets, evaluation, figures, runs
from ulm.datasets import procedural
from ulm.datasets.real import SOURCES
from ulm.diffusion.captions import caption


def table(rows):
    """A table whose words are not cut."""
    with pd.option_context("display.max_colwidth", None):
        display(rows)


runs.seed_everything(seed)
size = 96 if profile != "smoke" else 48
per_scene = 100 if profile != "smoke" else 24
print(
    f"profile {profile}, {size} px, PyTorch {torch.__version__}, {len(procedural.SCENES)} scenes, {len(SOURCES)} data sets"
)

# %% [markdown]
# ## What there is
#
# `ulm data list` prints this table, with access and licence, which the cards below have too; with `--root FOLDER` it says which of
# them are there. The papers' sets are read in the layout in
# which their authors give them away, `ulm data check mafl:ROOT` says precisely what a half-unpacked folder lacks.

# %% tags=["hide-input"]
rows = [
    {
        "data set": source.title,
        "name": source.spec,
        "stand-in": source.standin,
        "landmarks": source.landmarks or "none",
    }
    for source in SOURCES.values()
]
table(pd.DataFrame(rows).set_index("data set"))

# %% [markdown]
# ## The scenes
#
# Each picture depends on (scene, split, index) alone. Lines join landmarks that can be seen; small squares are landmarks that the object
# hides.


# %% tags=["hide-input"]
def samples(scene, count=8):
    """``count`` items of the test split; of a video scene, frames of as many videos."""
    every = getattr(procedural.load(scene, "test", size, 1).scene, "frames", 1)
    data = datasets.load(f"procedural:{scene}", "test", size, every * count)
    chosen = [every * i + (i % every) for i in range(count)]
    items = [data[i] for i in chosen]
    keys = ("image", "landmarks", "visible")
    return {key: torch.stack([item[key] for item in items]) for key in keys}, data.info


def show(*scenes):
    """For each scene a row of pictures, and the same with their landmarks; all have as many."""
    rows = []
    for scene in scenes:
        items, info = samples(scene, 8)
        unknown = torch.full_like(items["landmarks"], torch.nan)
        rows.append(items | {"landmarks": unknown})
        if info.landmark_names:
            rows.append(items)
    joined = {key: torch.cat([row[key] for row in rows]) for key in rows[0]}
    return figures.annotated_images(
        joined["image"], joined["landmarks"], joined["visible"], info.skeleton
    )


def film(scene, frames=8, video=0):
    """Frames of one video, evenly spread."""
    length = procedural.load(scene, "test", size, 1).scene.frames
    data = datasets.load(f"procedural:{scene}", "test", size, length * (video + 1))
    chosen = np.linspace(0, length - 1, frames).round().astype(int) + length * video
    items = [data[int(i)] for i in chosen]
    stacked = {
        k: torch.stack([i[k] for i in items]) for k in ("image", "landmarks", "visible")
    }
    return figures.annotated_images(
        stacked["image"], stacked["landmarks"], stacked["visible"], data.info.skeleton
    )


def card(*names):
    """What the real data sets are, and how they are got."""
    cards = {}
    for name in names:
        source = SOURCES[name]
        cards[source.spec] = {
            "data set": source.title,
            "landmarks": source.landmarks or "none",
            "normaliser": source.normaliser,
            "splits": source.splits,
            "where": f"{source.site} ({source.access})",
            "licence": source.licence,
            "source": source.citation,
        }
    table(pd.DataFrame(cards))


# %% [markdown]
# ### Faces from the front: CelebA and MAFL
#
# {numref}`fig-gallery-faces` shows `procedural:faces`, aligned and cropped, and in its lower half `procedural:faces-wild`, at any
# place and of several sizes, but never small: the protocol of CelebA in the wild leaves out pictures whose face takes less
# than 30 %.

# %% mystnb={"figure": {"caption": "procedural:faces and procedural:faces-wild", "name": "fig-gallery-faces"}, "image": {"alt": "Eight drawn heads, bare and with 68 landmarks, and eight others anywhere in the picture"}} tags=["hide-input"]
show("faces", "faces-wild")

# %% tags=["hide-input"]
card("celeba", "mafl", "celeba-wild")

# %% [markdown]
# ### Faces from all sides: AFLW, LS3D-W

# %% mystnb={"figure": {"caption": "procedural:faces-posed", "name": "fig-gallery-posed"}, "image": {"alt": "Eight drawn heads from the front to the full profile, with 68 landmarks"}} tags=["hide-input"]
show("faces-posed")

# %% tags=["hide-input"]
card("aflw", "ls3d")

# %% [markdown]
# ### Cats: CatHeads

# %% mystnb={"figure": {"caption": "procedural:cats", "name": "fig-gallery-cats"}, "image": {"alt": "Eight drawn cat heads of many breeds with landmarks on eyes, mouth and ears"}} tags=["hide-input"]
show("cats")

# %% tags=["hide-input"]
card("cats")

# %% [markdown]
# ### Faces that talk: VoxCeleb
#
# The items of a video scene are frames, sixteen in a row of one video, as `video` and `frame` of an item say
# ({numref}`fig-gallery-talking`).

# %% mystnb={"figure": {"caption": "Frames of one video of procedural:talking-faces", "name": "fig-gallery-talking"}, "image": {"alt": "Eight frames of one drawn person who talks and turns the head"}} tags=["hide-input"]
film("talking-faces")

# %% tags=["hide-input"]
card("voxceleb")

# %% [markdown]
# ### Signers: BBC-Pose

# %% mystnb={"figure": {"caption": "procedural:signers", "name": "fig-gallery-signers"}, "image": {"alt": "Eight drawn signers from the waist up with landmarks on head, shoulders, elbows and wrists"}} tags=["hide-input"]
show("signers")

# %% tags=["hide-input"]
card("bbcpose")

# %% [markdown]
# ### People: Human3.6M, MPII

# %% mystnb={"figure": {"caption": "procedural:people", "name": "fig-gallery-people"}, "image": {"alt": "Eight drawn people standing, walking and pointing in rooms, with a skeleton of landmarks"}} tags=["hide-input"]
show("people")

# %% tags=["hide-input"]
card("human36m", "mpii")

# %% [markdown]
# ### Exercise: Tai-Chi-HD

# %% mystnb={"figure": {"caption": "procedural:exercise", "name": "fig-gallery-exercise"}, "image": {"alt": "Eight drawn people in slow exercises, with a skeleton of landmarks"}} tags=["hide-input"]
show("exercise")

# %% tags=["hide-input"]
card("taichi")

# %% [markdown]
# ### Fashion: DeepFashion

# %% mystnb={"figure": {"caption": "procedural:fashion", "name": "fig-gallery-fashion"}, "image": {"alt": "Eight drawn models in varied dress before plain walls, with a skeleton of landmarks"}} tags=["hide-input"]
show("fashion")

# %% tags=["hide-input"]
card("deepfashion")

# %% [markdown]
# ### Birds: CUB-200-2011

# %% mystnb={"figure": {"caption": "procedural:birds (above) and procedural:birds-aligned", "name": "fig-gallery-birds"}, "image": {"alt": "Eight drawn birds of many species with up to fifteen landmarks, bare and with them; eight more that all face left"}} tags=["hide-input"]
show("birds", "birds-aligned")

# %% tags=["hide-input"]
card("cub")

# %% [markdown]
# ### Toys and house numbers: smallNORB, SVHN
#
# These have no landmarks: the papers show what is found on them, and measure nothing. A toy is known by category, instance, elevation,
# azimuth and light ({numref}`fig-gallery-toys`). IMM pairs digits that were cut from *the same* house number, so that source and target
# share a style: in `procedural:house-digits` such digits are one "video". In `procedural:house-numbers` a "video" is one number in
# several styles.

# %% mystnb={"figure": {"caption": "Toys, house numbers, digits of one house number", "name": "fig-gallery-toys"}, "image": {"alt": "Eight grey toys, such as animals, cars and aeroplanes; eight house numbers on walls and doors; eight digits cut from house numbers"}} tags=["hide-input"]
show("toys", "house-numbers", "house-digits")

# %% tags=["hide-input"]
card("smallnorb", "svhn")

# %% [markdown]
# ### Simple, painted and tinted pictures: for the pocket pipeline
#
# Some scenes stand in for no data set. In `procedural:simple-faces` and `procedural:simple-birds` ({numref}`fig-gallery-simple`) a handful of large parts, and in `procedural:painted-faces` ({numref}`fig-gallery-painted-faces`) and `procedural:painted-birds`
# ({numref}`fig-gallery-painted-birds`) many smaller ones, have vivid colours of their own, drawn by lot, and the caption names it: "red nose, blue mouth, grey left ear". Only the place of a part explains its
# colour. The tinted scenes ({numref}`fig-gallery-tinted-faces` to {numref}`fig-gallery-tinted-people`) do the same to the pictures of other scenes: a pixel of the subject is glazed with the
# colour of the nearest landmark's part, if that part was drawn by lot, and keeps its shading. From them, beside the other scenes,
# [the book's small diffusion model](pocket_pipeline.ipynb) learns that words name parts. Tokens of StableKeypoints are measured on the simple ones too, no detector on the others.

# %% mystnb={"figure": {"caption": "procedural:simple-faces and procedural:simple-birds", "name": "fig-gallery-simple"}, "image": {"alt": "Eight simple faces and eight simple birds of a few flat parts in loud colours, bare and with eight landmarks each"}} tags=["hide-input"]
show("simple-faces", "simple-birds")

# %% mystnb={"figure": {"caption": "procedural:painted-faces", "name": "fig-gallery-painted-faces"}, "image": {"alt": "Eight flat faces whose parts have loud colours, bare and with 68 landmarks"}} tags=["hide-input"]
show("painted-faces")

# %% mystnb={"figure": {"caption": "procedural:painted-birds", "name": "fig-gallery-painted-birds"}, "image": {"alt": "Eight flat birds whose parts have loud colours, bare and with up to fifteen landmarks"}} tags=["hide-input"]
show("painted-birds")

# %% mystnb={"figure": {"caption": "procedural:tinted-faces", "name": "fig-gallery-tinted-faces"}, "image": {"alt": "Eight faces with eyes, nose, mouth, chin, cheeks and hair glazed in loud colours, bare and with 68 landmarks"}} tags=["hide-input"]
show("tinted-faces")

# %% mystnb={"figure": {"caption": "procedural:tinted-birds", "name": "fig-gallery-tinted-birds"}, "image": {"alt": "Eight birds glazed part by part in loud colours, bare and with up to fifteen landmarks"}} tags=["hide-input"]
show("tinted-birds")

# %% mystnb={"figure": {"caption": "procedural:tinted-cats", "name": "fig-gallery-tinted-cats"}, "image": {"alt": "Eight cats glazed part by part in loud colours, bare and with nine landmarks"}} tags=["hide-input"]
show("tinted-cats")

# %% mystnb={"figure": {"caption": "procedural:tinted-people", "name": "fig-gallery-tinted-people"}, "image": {"alt": "Eight people glazed part by part in loud colours, bare and with seventeen landmarks"}} tags=["hide-input"]
show("tinted-people")

# %% tags=["hide-input"]
Markdown(
    "The first of each in words: "
    + "; ".join(
        f"*{caption(scene, 'test', 0)}*"
        for scene in (
            "simple-faces",
            "simple-birds",
            "painted-faces",
            "painted-birds",
            "tinted-faces",
            "tinted-birds",
        )
    )
    + "."
)

# %% [markdown]
# ## Could one guess?
#
# A stand-in on which the mean shape does well would teach nothing: a detector could succeed by remembering places. So here is the error
# of the mean shape on each scene, from the landmarks of its training pictures alone, normalised as the real set's protocol says, and in
# percent of the image's side, which can be compared between scenes.


# %%
def mean_shape(scene):
    """Errors of the mean shape (%), by the scene's own normaliser and by the side of the image."""
    train, test = (
        datasets.cached(
            datasets.labelled(f"procedural:{scene}", size, None, per_scene, split),
            progress=profile != "smoke",
        )
        for split in ("train", "test")
    )
    truth, guess = test.landmarks, train.landmarks.nanmean(0)
    own = evaluation.normalising_lengths(truth, test.info, size)
    distances = (guess - truth).norm(dim=-1).numpy()
    return {
        "landmarks": truth.shape[1],
        "normaliser": test.info.normaliser,
        "mean shape, own normaliser (%)": 100
        * float(np.nanmean(distances / own[:, None])),
        "mean shape, image side (%)": 100 * float(np.nanmean(distances)) / size,
        "pictures": len(truth),
        "fingerprint": test.fingerprint,
    }


labelled = [
    s
    for s in procedural.SCENES
    if procedural.load(s, "test", size, 1).info.landmark_names
]
guesses = {f"procedural:{scene}": mean_shape(scene) for scene in labelled}
pd.DataFrame(guesses).T.rename_axis("scene").style.format(precision=1)

# %% tags=["hide-input"]
sides = {name: row["mean shape, image side (%)"] for name, row in guesses.items()}
low, high = min(sides, key=sides.get), max(sides, key=sides.get)
Markdown(
    f"The aligned scenes leave the least to find: `{low}` has {sides[low]:.1f} % of the side. `{high}` has {sides[high]:.1f} %. "
    "Nothing can be read off a method's error on a scene without this number beside it."
)

# %% [markdown]
# ## Bring your own
#
# A folder of photographs is a data set too, `folder:PHOTOS`; with labels in the COCO keypoints format, `coco:FOLDER`. Every data set of
# this page can be written in that format, to be used elsewhere: `ulm data export procedural:cats OUT --limit 500`. Two sets of open
# photographs are fetched by one command, `ulm data get faces-ytf` and `ulm data get people-lsp`. See
# [Your own images](../book/your_images.md).
#
# ## Exercises
#
# ```{admonition} Exercise 1
# :class: exercise
# The normaliser of AFLW is the root of the area of the face's box, not the distance of the eyes. Why? Find a picture of
# `procedural:faces-posed` on which the distance of the eyes would fail.
# ```
#
# ````{dropdown} Solution
# In profile the outer corners of the eyes nearly coincide in the picture, so that a small error becomes a large percentage.
# ```python
# data = datasets.load("procedural:faces-posed", "test", 96, 200)
# max((item["yaw"] for item in (data[i] for i in range(200))), key=abs)
# ```
# ````
#
# ```{admonition} Exercise 2
# :class: exercise
# Export a hundred birds, read them back with `coco:OUT`, and check that the landmarks are the same.
# ```
#
# ````{dropdown} Solution
# ```bash
# ulm data export procedural:birds OUT --split test --limit 100
# ulm data check coco:OUT
# ```
# ````
#
# ## You have seen
#
# - ✓ a stand-in for each data set of the papers, and what the real one is;
# - ✓ landmarks that are hidden, and landmarks that move in videos;
# - ✓ two scenes that stand in for nothing, and are there for their captions;
# - ✓ how far a guess gets on each.
#
# Run it again: `ulm run notebooks/data_gallery -p data_root DATA`. Next: [IMM, step by step](imm_method.ipynb).
