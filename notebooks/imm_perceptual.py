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
# # A loss that learned to colour
#
# ````{admonition} Chapter card
# :class: chapter-card
#
# | | |
# |---|---|
# | **You will** | see on a toy picture why a difference of pixels is a poor teacher; train a network to colour grey pictures, without labels; meet one that learned from labels; compare pictures by its layers, with weights that balance themselves; measure what such a loss sees and what it overlooks; load the published networks from a file |
# | **You need** | [IMM, step by step](imm_method.ipynb) |
# | **Time** | 25 minutes to read, 2 minutes to run |
# | **Computer** | any, no GPU; 2 GB of memory |
# | **Data** | the 4,000 drawn pictures of the chapter before, from the cache; a hundred of each of six scenes |
# ````
#
# IMM redraws a picture and is told how far it is off. The whole method learns from this one number. So it matters how two
# pictures are compared. {cite:t}`jakab2018` compare them by the layers of a network that has learnt, without any label, to
# colour grey photographs {cite:p}`larsson2016`. They report 2.58 % with it where a difference of pixels has 2.84 % (squares)
# or 3.64 % (absolute values; Table 2, right).

# %% tags=["parameters"]
profile: str = "laptop"  # smoke, laptop or paper: how much is computed
dataset: str = "auto"  # auto: the paper's data if data_root has it, else its stand-in
data_root: str = ""  # folder that holds real data sets
device: str = "auto"  # auto, cpu, cuda or cuda:N
seed: int = 0  # of everything random
retrain: bool = False  # train for all the steps of the profile, instead of a fifth

# %% tags=["hide-input"]
import math
import tempfile
import warnings

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from IPython.display import Markdown

from ulm import chapters, datasets, figures, methods, runs, zoo
from ulm.methods import colourisation, recognition
from ulm.methods.imm import jitter_colours
from ulm.networks import perceptual

settings = runs.profile(profile)
runs.seed_everything(seed)
where = runs.pick_device(device)
print(
    f"profile {profile}, {runs.device_name(where)}, PyTorch {torch.__version__}, seed {seed}"
)

# %% [markdown]
# ## What is wrong with pixels?
#
# Take a picture with nothing but a thin line, 2 pixels wide: a lip, an eyelid. The generator draws the line, but $s$ pixels
# too far to the right. Or it draws no line at all. What does the squared difference of pixels say?


# %%
def line(at, width=2, side=64):
    """A white vertical line on grey, (1, 3, side, side)."""
    picture = torch.full((1, 3, side, side), 0.2)
    picture[..., at : at + width] = 0.8
    return picture


def l2(a, b):
    """Mean squared difference of pixels."""
    return (a - b).square().mean().item()


target, nothing = line(24), torch.full((1, 3, 64, 64), 0.2)
shifts = list(range(17))
by_pixels = [l2(target, line(24 + s)) for s in shifts]
erased = l2(target, nothing)
assert math.isclose(
    erased, 2 * 0.6**2 / 64, rel_tol=1e-4
)  # two columns of 64 are off by 0.6
assert math.isclose(
    by_pixels[5], 2 * erased, rel_tol=1e-4
)  # the line is missing in one place, and wrong in another
assert math.isclose(
    by_pixels[16], by_pixels[2], rel_tol=1e-4
)  # two pixels off is as bad as sixteen

# %% mystnb={"figure": {"caption": "A line drawn too far right", "name": "fig-perceptual-line"}, "image": {"alt": "The pixel difference rises within two pixels of shift to twice the level of drawing no line, then stays constant"}} tags=["hide-input"]
figures.lines(
    shifts,
    {"squared difference of pixels": [value / erased for value in by_pixels]},
    "shift (pixels)",
    "difference, in units of no line at all",
    levels={"no line at all": 1.0},
)

# %% [markdown]
# Two things are wrong ({numref}`fig-perceptual-line`). Beyond the width of the line the difference is constant: it does not
# say *how far* the line is off, so nothing draws it back. And it is twice as large as when the line is left out: the safest
# drawing has no lines. Pixel losses teach a generator to blur.
#
# What would be better? Something that sees that there *is* a line, roughly there. Layers of a trained network do: a unit of
# a deep layer looks at a large part of the picture, and answers to what is in it more than to where exactly.
#
# ## Learn to colour
#
# Where does one get such a network without labels? {cite:t}`larsson2016` take the colour out of photographs and train a
# network to put it back. To guess that this is red and that is blue it must know what is a lip and what is sky. The input
# is the grey picture, and the answer comes for free with every photograph.
#
# Colour without brightness has two coordinates, **hue** (which colour) and **chroma** (how much of it). With
# $r, g, b \in [0, 1]$,
#
# ```{math}
# :label: eq-hue
# \begin{aligned}
# \text{chroma} &= \max(r, g, b) - \min(r, g, b), \\
# \text{hue} &= \frac{1}{2\pi} \operatorname{atan2}\left(\sqrt 3\,(g - b),\; 2 r - g - b\right) \bmod 1 .
# \end{aligned}
# ```


# %%
def hue_chroma(images):
    """Equations above: (B, 3, H, W) to two maps (B, H, W) in [0, 1]."""
    r, g, b = images.unbind(1)
    hue = torch.atan2(3**0.5 * (g - b), 2 * r - g - b) / (2 * torch.pi) % 1
    return hue, images.amax(1) - images.amin(1)


colours = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [0.4, 0.4, 0.4]]).view(
    4, 3, 1, 1
)
hue, chroma = (values.flatten() for values in hue_chroma(colours))
assert torch.allclose(hue[:3], torch.tensor([0, 1 / 3, 2 / 3]))  # red, green, blue
assert chroma.tolist() == [1, 1, 1, 0]  # grey has none

faces = chapters.data(
    dataset, data_root, paper="mafl", standin="procedural:faces", profile=profile
)
shown = faces.test.batch(range(8))["image"]
for ours, theirs in zip(
    hue_chroma(shown), colourisation.hue_chroma(shown), strict=True
):
    assert torch.equal(ours, theirs)

# %% [markdown]
# A shirt may be red or blue, and the mean of both is a muddy nothing. So the network does not predict a colour. It
# predicts two *histograms* at each place, of 32 bins each, and is trained by their cross-entropies. Where there is no chroma
# the hue means nothing; hence the hue's share is weighted by the chroma (their equation 8, $\lambda = 5$):
#
# ```{math}
# :label: eq-colour
# \mathcal{L} = -\log p(\text{chroma}) - \lambda \cdot \text{chroma} \cdot \log p(\text{hue}) .
# ```


# %%
def colour_loss(hue_logits, chroma_logits, images, bins=32, weight=5.0):
    """Equation above, mean over all places; logits (B, 32, h, w)."""
    hue, chroma = hue_chroma(F.adaptive_avg_pool2d(images, hue_logits.shape[-2:]))
    hue_bin, chroma_bin = (
        (values * bins).long().clamp(0, bins - 1) for values in (hue, chroma)
    )
    log_hue = F.cross_entropy(
        hue_logits, hue_bin, reduction="none"
    )  # -log p(hue), (B, h, w)
    log_chroma = F.cross_entropy(chroma_logits, chroma_bin, reduction="none")
    return (log_chroma + weight * chroma * log_hue).mean()


logits = torch.randn(2, 8, 32, 16, 16, generator=torch.Generator().manual_seed(seed))
assert torch.isclose(
    colour_loss(*logits, shown),
    colourisation.colourisation_loss(*logits, shown),
    atol=1e-5,
)

# %% [markdown]
# The network is a VGG {cite:p}`simonyan2015` on grey pictures. At each place the five layers that IMM will compare are laid side by
# side (a *hypercolumn*), and two small layers make the histograms of it. We train a narrow one before your eyes.

# %% tags=["nbval-ignore-output"]
chosen = {
    **settings["colourisation"],
    "image_size": settings["size"],
    "seed": seed,
    "device": device,
}
chosen["steps"] = chosen["steps"] if retrain else max(2, chosen["steps"] // 5)
colouriser = methods.Colourisation(**chosen)
colouriser.fit(
    faces.train, log_every=max(1, chosen["steps"] // 20), progress=profile != "smoke"
)

# %% [markdown]
# What is the least that can be expected? A network that looks at nothing can still learn how common each colour is. Its
# loss is the entropy of the two histograms over all pictures.

# %%
sample = F.adaptive_avg_pool2d(
    faces.test.batch(range(min(200, len(faces.test))))["image"], settings["size"] // 4
)
hue, chroma = hue_chroma(sample)
counts = [torch.bincount((v * 32).long().clamp(0, 31).flatten(), w.flatten(), 32) for v, w in
          ((chroma, torch.ones_like(chroma)), (hue, chroma))]  # fmt: skip
entropy = [
    -(c / c.sum() * (c / c.sum()).clamp_min(1e-9).log()).sum().item() for c in counts
]
blind = entropy[0] + 5 * chroma.mean().item() * entropy[1]
last = colouriser.history_[-1]["colour"]
print(
    f"blind guess {blind:.2f}, network after {colouriser.history_[-1]['images_seen']:,} pictures {last:.2f}"
)

# %% mystnb={"figure": {"caption": "Learning to colour", "name": "fig-perceptual-learning"}, "image": {"alt": "The colour loss falls with the number of pictures seen, below the dashed level of a blind guess"}} tags=["hide-input"]
figures.learning_curves(
    {"this network": colouriser.history_},
    {"blind guess": blind},
    key="colour",
    ylabel="colour loss",
    log=False,
)

# %% [markdown]
# {numref}`fig-perceptual-colours` shows what it makes of grey test pictures. A network that is unsure of the hue gives pale
# colours: the mean over a broad histogram.

# %% mystnb={"figure": {"caption": "Grey, coloured by the network, true", "name": "fig-perceptual-colours"}, "image": {"alt": "Three rows of eight faces: grey pictures, the same with colours guessed by the network, and the originals"}} tags=["hide-input"]
grey = shown.mean(1, keepdim=True).expand(-1, 3, -1, -1)
guess = colouriser.predict(shown)  # (8, 3, h / 4, w / 4)
tint = F.interpolate(
    guess - guess.mean(1, keepdim=True), size=shown.shape[-2:], mode="bilinear"
)
figures.image_rows({"grey": grey, "coloured": (grey + tint).clamp(0, 1), "true": shown})

# %%
small = F.adaptive_avg_pool2d(shown, guess.shape[-2:])
off = {"grey": small.mean(1, keepdim=True).expand_as(small), "coloured": guess}
rms = {
    name: (picture - small).square().mean().sqrt().item()
    for name, picture in off.items()
}
pd.Series(rms, name="root mean square error of the colours").round(3).to_frame()

# %% [markdown]
# ## Or learn from labels
#
# The paper trains every detector twice. The rows *sup* of its Table 1 have another network: a VGG that was trained to name what a photograph of ImageNet shows. That takes labels, but of another kind than landmarks: one word a picture.
#
# Our scenes have such words too: the name of the scene, and in some the species of a bird, the category of a toy, the digit on a house. `Recognition` trains the same VGG on them, this time in colour. What it says of a picture is
# the mean of conv5_2 over all places, followed by one linear layer; its loss is the cross-entropy. The book ships one, `vgg16-labels`, that has seen 39 kinds. How often is it right on test pictures, and how often would one be
# who always named the commonest kind of the scene?

# %%
named = (zoo.folder() / "vgg16-labels" / "model.safetensors").is_file()
right = {}
if named:
    recogniser = methods.load("vgg16-labels", device, methods.Recognition)
    for scene in ("faces-posed", "cats", "people", "birds", "toys", "house-digits"):
        pictures = datasets.cached(
            datasets.load(
                f"procedural:{scene}",
                "test",
                recogniser.image_size,
                100 if profile != "smoke" else 4,
            ),
            progress=profile != "smoke",
        )
        truth = recognition.kinds(pictures)
        said = recogniser.predict(pictures.images)
        right[scene] = {
            "kinds": sum(kind.split()[0] == scene for kind in recogniser.kinds_),
            "right (%)": 100
            * np.mean(
                [
                    recogniser.kinds_[i] == kind
                    for i, kind in zip(said, truth, strict=True)
                ]
            ),
            "commonest kind (%)": 100 * max(map(truth.count, truth)) / len(truth),
        }
pd.DataFrame(right).T.rename_axis("scene").round(0).astype(int)

# %% [markdown]
# ## Compare pictures by layers
#
# The head that makes the histograms has done its work. What IMM uses is the trunk, $\Gamma$, as it is: batch normalisation is
# folded into the convolutions, and nothing in it is trained any more. If the book ships one that was trained for longer
# (`vgg16-colour`), we take that from here on.

# %%
own = colouriser.trunk()
shipped = (zoo.folder() / "vgg16-colour" / "model.safetensors").is_file()
trunk = perceptual.load("vgg16-colour", zoo.folder()) if shipped else own
print(
    "trunk:",
    "shipped with the book" if shipped else "trained above",
    f"({trunk.depth}, width {trunk.width})",
)

# %% mystnb={"figure": {"caption": "Five layers, mean activation", "name": "fig-perceptual-taps"}, "image": {"alt": "Four faces and, beside each, five maps of decreasing resolution: edges first, then blurred regions"}} tags=["hide-input"]
names = ("conv1_2", "conv2_2", "conv3_2", "conv4_2", "conv5_2")
with torch.no_grad():
    taps = trunk(shown[:4])
figures.perceptual_layers(shown[:4], taps, names)

# %% [markdown]
# IMM compares the pictures themselves and these five layers after their rectifiers ({numref}`fig-perceptual-taps`). For each
# layer let $m_l$ be the mean squared difference, each place weighted by the mask of the pair,
#
# ```{math}
# :label: eq-terms
# m_l = \operatorname{mean}\left[ m \odot \left(\Gamma_l(\mathbf{x}') - \Gamma_l(\hat{\mathbf{x}}')\right)^2 \right] .
# ```


# %%
def terms(trunk, drawn, target, mask):
    """Equation above for input, conv1_2, ..., conv5_2: (6,). Pictures in [0, 1]."""
    pairs = [
        (255 * drawn, 255 * target),
        *zip(trunk(drawn), trunk(target), strict=True),
    ]
    found = []
    for ours, theirs in pairs:
        at = (
            F.interpolate(mask, size=ours.shape[-2:], mode="bilinear")
            if mask.shape != ours.shape
            else mask
        )
        found.append(
            (at * (ours - theirs).square()).mean()
        )  # over all places, hidden ones included
    return torch.stack(found)


mask = torch.ones(8, 1, *shown.shape[-2:])
other = shown.roll(1, 0)
with torch.no_grad():
    m = terms(trunk, other, shown, mask)
    assert torch.allclose(
        m, perceptual.ContentLoss(trunk).terms(other, shown, mask), rtol=1e-4
    )
pd.Series(m, index=["input", *names], name="mean squared difference of two faces").map(
    "{:.3g}".format
).to_frame()

# %% [markdown]
# They differ by orders of magnitude, and added up as they are, one would drown the others. The weights $\alpha_l$ of the paper
# are there to balance them, and are "updated online during training to normalise the expected contribution from each
# layer". In the code: a running mean $w_l$ of each term, and each term is divided by its own,
#
# ```{math}
# :label: eq-running
# w_l \leftarrow w_l + 0.01\,(m_l - w_l), \qquad \mathcal{L} = \sum_l \frac{m_l}{w_l} .
# ```
#
# We check it on a few drawings that become sharper and sharper: the target, blurred less and less.


# %%
def blurred(images, sigma):
    """Gaussian blur of (B, 3, H, W)."""
    offsets = torch.arange(-12, 13.0)
    kernel = (-offsets.square() / (2 * sigma**2)).exp()
    kernel = (kernel / kernel.sum()).view(1, 1, -1, 1).expand(3, 1, -1, 1)
    wide = F.pad(images, (12, 12, 12, 12), mode="replicate")
    return F.conv2d(F.conv2d(wide, kernel, groups=3), kernel.transpose(2, 3), groups=3)


sigmas = torch.linspace(5, 0.5, 31 if profile != "smoke" else 5)
content, w, differences = perceptual.ContentLoss(trunk).train(), None, []
with torch.no_grad():
    for sigma in sigmas:
        drawn = blurred(shown[:4], float(sigma))
        m = terms(trunk, drawn, shown[:4], mask[:4])
        w = m if w is None else w + 0.01 * (m - w)
        assert torch.isclose(
            content(drawn, shown[:4], mask[:4]), (m / w).sum(), rtol=1e-3
        )
        differences.append(m)
differences = torch.stack(differences)  # (31, 6)

# %% [markdown]
# Now pretend that a training of 5,000 steps goes through these drawings, one after the other, and follow the loss
# ({numref}`fig-perceptual-running`).

# %%
training = F.interpolate(
    differences.T[None], size=5000, mode="linear", align_corners=True
)[0].T  # m_l at each step
w, losses = training[0], []
for m in training:
    w = w + 0.01 * (m - w)
    losses.append(float((m / w).sum()))

# %% mystnb={"figure": {"caption": "The loss hides the progress", "name": "fig-perceptual-running"}, "image": {"alt": "Over the steps the unnormalised differences of input and conv3_2 fall to a small fraction of their start; the loss divided by six falls much more slowly"}} tags=["hide-input"]
every = slice(0, None, 25)
figures.lines(
    torch.arange(1, 5001)[every],
    {
        "loss / 6": torch.tensor(losses)[every] / 6,
        "input": (training[:, 0] / training[0, 0])[every],
        "conv3_2": (training[:, 3] / training[0, 3])[every],
    },
    "step",
    "relative to the first step",
)

# %% tags=["hide-input"]
Markdown(
    f"Halfway, at step 2,500, the difference of the pictures has fallen to {100 * training[2500, 0] / training[0, 0]:.0f} % and that of conv3_2 to "
    f"{100 * training[2500, 3] / training[0, 3]:.0f} %. The loss is {losses[2500]:.2f}."
)

# %% [markdown]
# At the first step each term is 1 and the loss is 6, the number of terms. From then on each weight runs after its term, about
# a hundred steps behind. So the loss stays *near 6 for the whole of a training*, however much better the drawings become. Do not
# look at it to see whether IMM learns: look at the $m_l$, or better at the error of the landmarks. And a training that is resumed must resume the weights too; `ulm` keeps them in its checkpoints.
#
# ## What does it see?
#
# Back to the thin line. We compare the shifted line with the target layer by layer, each time in units of *no line at all*
# ({numref}`fig-perceptual-shift`).

# %%
with torch.no_grad():
    one = torch.ones(1, 1, 64, 64)
    none = terms(trunk, nothing, target, one)
    by_layer = torch.stack(
        [terms(trunk, line(24 + s), target, one) / none for s in shifts]
    )  # (17, 6)

# %% mystnb={"figure": {"caption": "The shifted line, seen by layers", "name": "fig-perceptual-shift"}, "image": {"alt": "Six curves of difference against shift: the input jumps at once, deeper layers rise more slowly and over more pixels"}} tags=["hide-input"]
figures.lines(
    shifts,
    {name: by_layer[:, i] for i, name in enumerate(("input", *names))},
    "shift (pixels)",
    "difference, in units of no line at all",
    levels={"no line at all": 1.0},
)

# %% tags=["hide-input"]
half = [int((by_layer[:, i] >= 0.5 * by_layer[-1, i]).nonzero()[0]) for i in range(6)]
better = int((by_layer.mean(1)[1:] < 1).sum())
Markdown(
    "Half of the final difference is reached after a shift of "
    + ", ".join(
        f"{s} ({name})" for s, name in zip(half, ("input", *names), strict=True)
    )
    + f" pixels. Layers with a wider view still tell a small shift from a large one. Averaged over the six terms, a line that is off "
    f"by up to {better} pixel{'s' * (better != 1)} is {'better' if better else 'no better'} than none."
)

# %% [markdown]
# A line is a toy. On faces we want a loss that is strict where the geometry is wrong and lenient where only the colours are, because
# geometry is what landmarks can tell. So: how large is the difference to the same face *moved* by 3 pixels, to the same face in
# *other colours*, and to a *blurred* one, in percent of the difference to another face? A random network of the same shape is in the
# table to show what training adds.

# %%
many = faces.test.batch(range(min(32, len(faces.test))))["image"]
jittered = jitter_colours(many, 0.3, torch.Generator().manual_seed(seed)).clamp(0, 1)
changes = {
    "moved by 3 pixels": many.roll(3, -1),
    "other colours": jittered,
    "blurred": blurred(many, 2.0),
}
torch.manual_seed(seed)
judges = {"random network": perceptual.VGG(own.depth, own.width).eval()}
if named:
    judges["learned from labels"] = recogniser.trunk()
judges["trained above"] = own
if shipped:
    judges["shipped with the book"] = trunk
inside = torch.zeros(len(many), 1, *many.shape[-2:])
inside[..., 4:-4, 4:-4] = 1  # what the shift brings in at the border is not compared
rows = {}
with torch.no_grad():
    for name, judge in judges.items():
        scale = terms(
            judge, many.roll(1, 0), many, inside
        )  # the difference to another face
        share = {
            change: 100 * terms(judge, picture, many, inside) / scale
            for change, picture in changes.items()
        }
        rows.setdefault(
            "pixels", {change: values[0].item() for change, values in share.items()}
        )
        rows[name] = {
            change: values[1:].mean().item() for change, values in share.items()
        }
table = pd.DataFrame(rows).T
table["moved / other colours"] = table.iloc[:, 0] / table.iloc[:, 1]
table.style.format("{:.1f}", subset=list(table)[:3]).format(
    "{:.2f}", subset=list(table)[3:]
)

# %% tags=["hide-input"]
ratio = table["moved / other colours"]
gain = ratio.iloc[-1] - ratio["random network"]
Markdown(
    f"By pixels, three pixels cost {ratio.iloc[0]:.2f} times as much as other colours; for a random network it is "
    f"{ratio['random network']:.2f} times, for the last network of the table {ratio.iloc[-1]:.2f} times. "
    + (
        "Depth alone already looks more at geometry than pixels do. "
        if ratio["random network"] > ratio.iloc[0]
        else ""
    )
    + (
        "Learning to colour adds to it. "
        if gain > 0.05
        else "Learning to colour was too short to add to it. "
    )
    + (
        f"For the one that learned from labels it is {ratio['learned from labels']:.2f} times; it is the only one of these networks that sees colours. "
        if named
        else ""
    )
    + f"A blurred face costs {table.blurred.iloc[0]:.0f} % by pixels and {table.blurred.iloc[-1]:.0f} % by the layers: a generator that "
    "blurs is no longer safe."
)

# %% [markdown]
# ## Use it, or the published one
#
# `IMM(loss="content")` takes any of these by its hyperparameter `perceptual`. Here the trunk that you have just trained is saved
# and used for two steps of IMM.

# %%
with tempfile.TemporaryDirectory() as folder:
    colouriser.save_pretrained(folder)  # the trunk alone
    detector = methods.IMM(
        n_landmarks=10,
        image_size=settings["size"],
        width=8,
        batch_size=4,
        steps=2,
        loss="content",
        perceptual=f"{folder}/model.safetensors",
        seed=seed,
        device=device,
    )
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # after two steps the landmarks still lie on each other
        detector.fit(faces.test, progress=False)
print(
    {
        name: round(value, 2)
        for name, value in detector.history_[0].items()
        if name == "reconstruction"
    }
)

# %% [markdown]
# The networks of the paper are too large to ship with a book. If you have them, or are online once:
#
# | `perceptual=` | What it is |
# |---|---|
# | `"vgg16.caffemodel.h5"` | the authors' file: VGG-16 on grey pictures, trained to colour photographs; the rows *selfsup* of Table 1 |
# | `"timm/vgg19.tv_in1k"` | VGG-19 of ImageNet from the Hugging Face hub; the rows *sup* |
# | `"timm/vgg16.tv_in1k"` | VGG-16 of ImageNet |
# | `"FILE.safetensors"` | any VGG in torchvision's layout, or the `model.safetensors` of a `Colourisation` or `Recognition` of yours |
# | `"vgg16-colour"` | the small one that ships with the book, trained to colour drawn faces: our rows *selfsup* |
# | `"vgg19-colour"` | the same with the depth of VGG-19 |
# | `"vgg16-labels"` | the small one that learned from labels: our rows *sup* |
#
# ```bash
# ulm fit --data coco:FACES --out MODEL --profile paper -p perceptual vgg16.caffemodel.h5
# ```
#
# ## Exercises
#
# ```{admonition} Exercise 1
# :class: exercise
# Replace the thin line by the edge of a large area (`picture[..., at:] = 0.8`). What does the difference of pixels say about a
# shift of $s$, and beyond which $s$ is a flat grey of 0.5 the safer drawing?
# ```
#
# ````{dropdown} Solution
# The difference is $0.6^2\, s / 64$: it grows with the shift, so edges of large areas are not the problem. The grey picture
# is off by 0.3 everywhere, 0.09. So grey is safer beyond $s = 16$.
# ````
#
# ```{admonition} Exercise 2
# :class: exercise
# In Table 2 of {cite:t}`jakab2018` the absolute difference ($\ell_1$, 3.64 %) is worse than the squared one ($\ell_2$, 2.84 %).
# Repeat the first section with absolute differences. Does the toy tell you why?
# ```
#
# ````{dropdown} Solution
# It does not: on the line, absolute and squared differences are the same up to a factor, since each pixel is off by 0.6 or by
# nothing. The toy says what both have in common. Where they differ is between many small errors and few large ones; the
# absolute difference has the median as its safest drawing and gives up on thin things entirely.
# ````
#
# ```{admonition} Exercise 3
# :class: exercise
# Leave out the input from the sum (`terms(...)[1:]`) and measure *moved / other colours* again for each layer by itself. Which layer
# would you choose if you could have only one?
# ```
#
# ````{dropdown} Solution
# ```python
# 100 * terms(trunk, changes["moved by 3 pixels"], shown, inside) / terms(trunk, changes["other colours"], shown, inside)
# ```
# The ratio tells. Keep in mind that a deep layer of a picture of 64 pixels has 4 × 4 places only and cannot see small shifts.
# ````
#
# ## You have seen
#
# - ✓ on a thin line, that a difference of pixels prefers nothing to something slightly displaced;
# - ✓ a network that learns to colour, from hue, chroma and histograms to coloured faces, and one that learned from labels;
# - ✓ the loss of IMM, layer by layer, with its running weights, and why its value says nothing about progress;
# - ✓ how strict it is with geometry and with colour, in numbers;
# - ✓ how to plug in your own network, or the published ones.
#
# Run it again: `ulm run notebooks/imm_perceptual -p profile paper -p data_root DATA`. Next: [IMM on faces](imm_faces.ipynb).
