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
#     minutes: 12
# ---

# %% [markdown]
# # A diffusion model for the pocket
#
# ````{admonition} Chapter card
# :class: chapter-card
#
# | | |
# |---|---|
# | **You will** | build latent diffusion from its parts: autoencoder, faint colours, noise, phrases, U-Net with cross-attention, guidance, DDIM; check each part against the library; train one while you read; measure whether captions decide the picture, and where a phrase looks; load the book's model with plain `diffusers`; train one on pictures of your own |
# | **You need** | convolutional networks, gradients; no knowledge of diffusion |
# | **Time** | 60 minutes to read, 10 minutes to run with one thread |
# | **Computer** | any, no GPU; 3 GB of memory |
# | **Data** | drawn here: 2,000 simple faces to learn from, and a thousand pictures to look at |
# ````
#
# The two papers that follow find landmarks inside a diffusion model: a network that has learnt to draw pictures from
# captions. Theirs is Stable Diffusion 1.5 {cite:p}`rombach2022`, four gigabytes that want a large graphics card. This book
# cannot ask that of every reader. So it ships a small one, *the pocket pipeline*: the same plan, block for block, only
# narrower, trained by the book on its own drawn scenes. What is layer 7 there is layer 7 here.
#
# This chapter says how such a model works, from the beginning. Afterwards each method of the next chapters takes
# `backbone="pocket"`, or `backbone="stable-diffusion-v1-5/stable-diffusion-v1-5"`, and runs the same code.

# %% tags=["parameters"]
profile: str = "laptop"  # smoke, laptop or paper: how much is computed
dataset: str = "auto"  # what the short run learns from; auto: simple faces
data_root: str = ""  # folder that holds real data sets; this page needs none
device: str = "auto"  # auto, cpu, cuda or cuda:N
seed: int = 0  # of everything random
retrain: bool = False  # train for all the steps of the profile, instead of a minute
backbone: str = "auto"  # auto: what the profile says; or pocket, a folder, a hub id

# %% tags=["hide-input"]
import copy
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from IPython.display import Markdown
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.utils.flop_counter import FlopCounterMode

from ulm import datasets, diffusion, figures, runs, zoo
from ulm.datasets.painted import PAINTS
from ulm.diffusion import captions as words
from ulm.diffusion import pipelines, taps
from ulm.diffusion.phrases import Phrases
from ulm.diffusion.sampling import sample
from ulm.methods.pocket import Gallery, Pocket, thumbnail
from ulm.methods.stable_keypoints import default_layers
from ulm.zoo import recipes

settings = runs.profile(profile)
sizes = settings["diffusion"]
runs.seed_everything(seed)
where = runs.pick_device(device)
if backbone == "auto":
    backbone = settings["stable-keypoints"].get("backbone", "pocket")
columns, steps, count = (2, 1, 6) if profile == "smoke" else (6, 15, 100)
print(
    f"profile {profile}, {runs.device_name(where)}, PyTorch {torch.__version__}, "
    f"seed {seed}, backbone {backbone}"
)

# %% [markdown]
# ## Pictures with captions
#
# To draw from words, a model must see pictures with words. The scenes of this book are drawn by a program, and the program
# knows what it draws. So it can write the caption too, part by part, each part with a colour or a kind of its own. *Left* and
# *right* are those of the picture.

# %%
many = {"faces-wild": 4 * count}  # the hardest question below is about these
kept = ("faces-wild", "birds", "cats", "people", "toys", "house-numbers")
loud_scenes = tuple(
    f"{style}-{kind}" for style in ("simple", "painted", "tinted") for kind in ("faces", "birds")
)  # fmt: skip
scenes = {
    scene: datasets.cached(
        datasets.load(
            f"procedural:{scene}", "test", sizes["size"], many.get(scene, count)
        ),
        progress=profile != "smoke",
    )
    for scene in (*kept, *loud_scenes)
}
texts = {scene: words.captions(pictures) for scene, pictures in scenes.items()}
print(f"{len(words.VOCABULARY)} different words in the captions of all scenes")
pd.Series(
    {scene: each[1] for scene, each in texts.items()}, name="a caption"
).to_frame()

# %% mystnb={"figure": {"caption": "Scenes and their captions", "name": "fig-pocket-captions"}, "image": {"alt": "Six drawn pictures, a face, a bird, a cat, a person, a toy and a house number, each with its caption below"}} tags=["hide-input"]
figures.captioned_images(
    torch.stack([scenes[scene][1]["image"] for scene in kept]),
    [texts[scene][1] for scene in kept],
    columns=3,
    largest=2.6,
)

# %% [markdown]
# Why name the parts? A model that is told *a face* needs to know only that. A model that is told *red hair, green eyes* has to
# find out what is hair and what are eyes, or it will paint the wrong place red. Nobody marks these places for it. The
# landmarks of the next chapters live on that knowledge.
#
# But natural colours say little of parts. Eyes are brown or blue and a few pixels large; lips differ little from skin; both
# eyes have one colour, so nothing needs to be known of left and right. A small model can paint a fair face and hardly listen. So
# there are scenes for the sake of words ({numref}`fig-pocket-painted`). *Simple* faces and birds are a handful of flat parts on plain ground. Each part
# has a colour of its own, drawn at random, and so have the left and the right. Here no word can be guessed from another one. Only
# who knows the place of the *left eye* can use the words *orange left eye*. *Painted* faces and birds say the same of more and smaller
# parts.

# %% mystnb={"figure": {"caption": "Simple and painted: every part its own colour", "name": "fig-pocket-painted"}, "image": {"alt": "Two simple faces, two simple birds, a painted face and a painted bird in flat loud colours, each with a caption below that gives every part its colour"}} tags=["hide-input"]
painted = [("simple-faces", 0), ("simple-faces", 1), ("painted-faces", 0),
           ("simple-birds", 0), ("simple-birds", 1), ("painted-birds", 0)]  # fmt: skip
figures.captioned_images(
    torch.stack([scenes[scene][i]["image"] for scene, i in painted]),
    [texts[scene][i] for scene, i in painted],
    columns=3,
    largest=2.6,
)

# %% [markdown]
# Such pictures look like no others, and what is learnt on flat shapes need not carry over to light, texture and clutter. So there is a
# bridge ({numref}`fig-pocket-tinted`): *tinted* pictures are those of the natural scenes, with parts of the subject, at times all and at times a few, glazed in vivid colours.
# Which part a pixel belongs to is decided by the nearest landmark of the scene. This is where knowledge of parts enters, and it has to be
# said plainly: the model is never shown a landmark, but some of its pictures were coloured by a program that knows them. Stable Diffusion got such
# knowledge from hundreds of millions of captions that people wrote; a few thousand pictures have to be more to the point.

# %% mystnb={"figure": {"caption": "Tinted scenes: natural pictures, with glazed parts", "name": "fig-pocket-tinted"}, "image": {"alt": "Three faces and three birds, some or all of their parts glazed in loud colours over their natural shading, each with a caption below that names these colours"}} tags=["hide-input"]
glazed = [(scene, i) for scene in ("tinted-faces", "tinted-birds") for i in range(3)]
figures.captioned_images(
    torch.stack([scenes[scene][i]["image"] for scene, i in glazed]),
    [texts[scene][i] for scene, i in glazed],
    columns=3,
    largest=2.6,
)

# %% [markdown]
# ## The whole plan
#
# {numref}`fig-pocket-plan` shows how it is trained. An *autoencoder* makes small *latents* of a picture. Noise is added to
# them. A U-Net is shown the noisy latents and the caption, and has to tell the two apart: what of this is picture, what is noise?
# Its answer is one array, the latents as they were without the noise. That is all. The rest of this chapter goes through it from left
# to right, on one batch, in code that is checked against the library.

# %%
pocket = diffusion.load("pocket", "cpu", "float32")  # for the checks
shipped = zoo.config(zoo.folder() / "pocket")  # how it was trained
colour = shipped["parameters"]["colour"]  # a quarter; why, is said below
precision = "float32" if where.type == "cpu" else "auto"
pipeline = diffusion.load(backbone, device, precision)
side, size = pipeline.latent_size, pipeline.image_size
is_pocket = pipeline.token_dim < 500  # not a Stable Diffusion
kind = pipeline.scheduler.config.prediction_type  # what its U-Net says
target = {"sample": "latents", "epsilon": "noise", "v_prediction": "velocity"}[kind]
print(
    f"{pipeline.name}: pictures of {size} x {size}, latents of {side} x {side} x 4, "
    f"{sum(p.numel() for p in pipeline.unet.parameters()) / 1e6:.1f} million parameters "
    f"in the U-Net, which predicts the {target}"
)

# %% mystnb={"figure": {"caption": "Latent diffusion, our drawing", "name": "fig-pocket-plan"}, "image": {"alt": "Diagram: a picture is encoded to latents, which a decoder turns back into a picture; noise is added to the latents; a U-Net, which gets keys and values from a text encoder, makes a prediction, and the loss compares it with the truth"}} tags=["hide-input"]
shown = scenes["faces-wild"][1]["image"][None]
noise = torch.randn(
    (1, 4, side, side), generator=torch.Generator().manual_seed(seed)
).to(where)


def rgb_of(small, colour):
    """Colours (B, 3, h, w) of lightness and two differences that are fainter by `colour`."""
    light, first, second = small.unbind(1)
    first, second = first / colour, second / colour
    rest = light - 2 / 3 * second
    rgb = torch.stack([rest + first, light + 4 / 3 * second, rest - first], 1)
    return (rgb / 2 + 0.5).clamp(0, 1)


def as_picture(z):
    """Three of the four numbers of latents as colours."""
    z = z[:, :3].float().cpu()
    if not is_pocket:
        return (z[0] / 5 + 0.5).clamp(0, 1)
    return rgb_of(z / pipeline.vae.config.scaling_factor, 1.0)[0]  # faint, as they are


clean = pipeline.latents(shown)
mixed = pipeline.noisy(clean, 400, noise)
with torch.no_grad():
    context = pipeline.embed(texts["faces-wild"][1]).to(pipeline.dtype)
    guess = pipeline.unet(mixed.to(pipeline.dtype), 400, context).sample
parts = {
    "image": shown[0],
    "latent": as_picture(clean),
    "noisy": as_picture(mixed),
    "predicted": as_picture(guess),
    "redrawn": pipeline.decode(clean)[0].cpu(),
}
opening = ", ".join(texts["faces-wild"][1].split(", ")[:2])
figures.latent_diffusion(parts, f"{opening} ...", target)

# %% [markdown]
# ## The autoencoder
#
# Why not draw pixels? Because it is a waste. Neighbouring pixels are nearly equal, and a network that handles millions of
# them is slow. {cite:t}`rombach2022` first train an **autoencoder**: an encoder makes of the picture $\mathbf{x}$ an array of
# a smaller grid, with four numbers a place, and a decoder makes the picture again. In Stable Diffusion 512 × 512 pixels
# become 64 × 64 places; in the pocket 64 × 64 become 16 × 16.
#
# The encoder gives a mean $\mu$ and a variance $\sigma^2$ for each number {cite:p}`kingma2014`. What is decoded is a draw,
#
# ```{math}
# :label: eq-pocket-vae
# \mathbf{z} = \mu(\mathbf{x}) + \sigma(\mathbf{x}) \odot \epsilon, \qquad
# \mathcal{L} = \lVert \mathbf{x} - D(\mathbf{z}) \rVert_1 + \lambda_\text{p}\, d_\text{p}(\mathbf{x}, D(\mathbf{z}))
# + \tfrac{1}{2} \lambda_\text{KL} \left( \mu^2 + \sigma^2 - 1 - \log \sigma^2 \right),
# ```
#
# each term a mean over all its numbers. The first term wants the picture back. The second, $d_\text{p}$, compares layers of
# the network that [learned to colour](imm_perceptual.ipynb), so that edges stay sharp. The last one keeps the latents from
# growing without end; its weight is tiny.
#
# The pocket adds a fourth term, $\lambda_\text{t} \lVert \mu_{1..3} - \mathbf{x}^{\downarrow} \rVert_1$: three of a latent's four
# channels are to be the picture itself, shrunk to the grid of the latents; the fourth is free. Left to itself a small autoencoder fills its
# latents with fine detail, and fine detail is what no caption tells. But the three are not red, green and blue. They are the
# lightness and two differences of colours,
#
# ```{math}
# :label: eq-pocket-thumbnail
# \mathbf{x}^{\downarrow} = \left( \tfrac{1}{3} (R + G + B), \;\; \tfrac{\rho}{2} (R - B), \;\;
# \tfrac{\rho}{4} (2 G - R - B) \right), \qquad \rho = \tfrac{1}{4} ,
# ```
#
# of the shrunk picture's values in $[-1, 1]$. The factor $\rho$ makes colours *faint*, on purpose. Nothing is lost by it, the decoder makes
# them strong again. Why that helps to learn words is told below, when there is noise.


# %%
def faint(x, size, colour):
    """Equation above, of pictures (B, 3, H, W) in [0, 1]."""
    r, g, b = F.adaptive_avg_pool2d(2 * x - 1, size).unbind(1)
    light = (r + g + b) / 3
    return torch.stack(
        [light, colour * (r - b) / 2, colour * (2 * g - r - b) / 4], dim=1
    )


x = scenes["tinted-faces"].batch(range(4))["image"]
small = faint(x, 16, colour)
assert torch.allclose(small, thumbnail(x, 16, colour))
assert torch.allclose(rgb_of(small, colour), F.adaptive_avg_pool2d(x, 16), atol=1e-5)
deviation = small.std((0, 2, 3))
print(
    "deviation: lightness {:.2f}, the differences {:.3f} and {:.3f}".format(*deviation)
)


# %%
def encode(vae, x):
    """Mean and log variance of the latents, (B, 4, h, w) each, of pictures in [0, 1]."""
    mean, log_variance = vae.quant_conv(vae.encoder(2 * x - 1)).chunk(2, dim=1)
    return mean, log_variance.clamp(-30, 20)


def autoencoder_loss(vae, x, eps, colour):
    """First and last term of the autoencoder's loss, and the one of the shrunk picture."""
    mean, log_variance = encode(vae, x)
    z = mean + (log_variance / 2).exp() * eps  # mu + sigma eps
    redrawn = vae.decode(z).sample / 2 + 0.5
    kl = (mean.square() + log_variance.exp() - 1 - log_variance).mean() / 2
    small = faint(x, mean.shape[-1], colour)
    return (redrawn - x).abs().mean(), kl, (mean[:, :3] - small).abs().mean()


# %% [markdown]
# Is this what the library does? A tiny model is trained for six steps: one of the text encoder, one of the autoencoder, four of
# the U-Net. Its history holds the losses, each from before its step, and we keep the networks after each step. With the same
# weights, pictures and random numbers we must get the same.

# %%
gallery = Gallery(list(scenes.values()))
tiny = {"config": "tiny", "perceptual": "", "precision": "float32", "device": "cpu"}
learner = Pocket(steps=6, text_steps=1, autoencoder_steps=1, batch_size=8,
                 learning_rate=0.01, seed=seed, **tiny)  # fmt: skip
after = {0: learner.untrained().networks}  # steps done: networks


def keep(model, step):
    """Called after each step."""
    after[step] = copy.deepcopy(model.networks)
    return {}


learner.fit(gallery, log_every=1, monitor=keep, progress=False)

x, _ = learner._batch(gallery, step=1)  # (8, 3, 32, 32)
cpu = torch.device("cpu")
eps = torch.randn(8, 4, 16, 16, generator=runs.generator(cpu, seed, 4, 1))
with torch.no_grad():
    losses = autoencoder_loss(after[1]["vae"], x, eps, learner.colour)
logged = [learner.history_[1][name] for name in ("pixels", "kl", "thumbnail")]
assert np.allclose(losses, logged, atol=1e-5)
print(
    "before training: pixels off by {:.3f}, KL {:.3f}, shrunk picture {:.3f}".format(
        *losses
    )
)

# %% [markdown]
# The U-Net expects latents of deviation 1, since the noise has that. So the latents are multiplied by a **scaling factor**, one
# over their deviation on a batch of training pictures. It is measured once and kept with the model. (Stable Diffusion's,
# 0.18215, is this very number.) It is one number for all channels, so lightness stays strong and colours stay faint. The deviations
# $d_c$ of the single channels are measured too; the loss of the U-Net needs them.

# %%
x, _ = learner._batch(gallery, step=2)  # the U-Net's first batch
with torch.no_grad():
    mean = encode(after[2]["vae"], x)[0]
    factor = 1 / mean.std()
    deviations = factor * mean.std((0, 2, 3))
assert torch.allclose(deviations, after[3]["scaling"].deviations, atol=1e-4)
assert np.isclose(factor, learner.pipeline().vae.config.scaling_factor, rtol=1e-4)
spread = pipeline.latents(torch.stack([scenes["birds"][i]["image"] for i in range(6)]))
print(
    f"factor of the tiny model {factor:.3f}, of {pipeline.name} "
    f"{pipeline.vae.config.scaling_factor:.3f}; deviation of six birds' latents "
    f"there {spread.std():.1f}"
)

# %% [markdown]
# What is lost on the way? {numref}`fig-pocket-redrawn` shows pictures that the model was not trained on, and what comes back.
# The peak signal-to-noise ratio says it in numbers, $\text{PSNR} = -10 \log_{10} \text{MSE}$: 20 dB is a root mean
# square error of a tenth of the range from black to white, 30 dB of a thirtieth.


# %%
def psnr(a, b):
    """Peak signal-to-noise ratio in dB of each pair, for pictures in [0, 1]."""
    return -10 * (a - b).square().flatten(1).mean(1).log10()


held_out = {
    scene: torch.stack([pictures[i]["image"] for i in range(min(30, count))])
    for scene, pictures in scenes.items()
}
held_out = {
    scene: F.interpolate(each, size=size, mode="bilinear", antialias=True)
    for scene, each in held_out.items()
}
coded = {scene: pipeline.latents(each) for scene, each in held_out.items()}
d_here = torch.cat(list(coded.values())).float().std((0, 2, 3))  # of each channel
redrawn = {scene: pipeline.decode(z).cpu() for scene, z in coded.items()}
quality = {scene: psnr(redrawn[scene], each) for scene, each in held_out.items()}
flat = {  # all that is known of the picture is its mean colour
    scene: psnr(each.mean((2, 3), keepdim=True).expand_as(each), each)
    for scene, each in held_out.items()
}
pd.DataFrame(
    {
        "PSNR (dB)": {scene: each.mean().item() for scene, each in quality.items()},
        "worst picture": {scene: each.min().item() for scene, each in quality.items()},
        "mean colour alone": {
            scene: each.mean().item() for scene, each in flat.items()
        },
    }
).round(1)

# %% mystnb={"figure": {"caption": "Through the autoencoder and back", "name": "fig-pocket-redrawn"}, "image": {"alt": "Two rows of eight pictures, a face, a bird, a cat, a person, a toy, a house number, a painted face and a painted bird, as drawn and as the autoencoder returns them, with the PSNR below"}} tags=["hide-input"]
figures.redrawn_images(
    torch.stack([each[1] for each in held_out.values()]),
    torch.stack([each[1] for each in redrawn.values()]),
    [f"{each[1]:.1f} dB" for each in quality.values()],
    ("picture", "redrawn"),
)

# %% [markdown]
# Whatever is drawn later goes through this decoder. It sets the limit of sharpness; the U-Net can only do worse.
#
# ## Noise
#
# Now the central idea {cite:p}`ho2020`. Take latents $\mathbf{z}_0$ and add a little noise, a thousand times, until nothing
# but noise is left. Each single step is easy to undo. Who can undo all of them, one after the other, can make pictures from
# nothing but noise.
#
# Step $t$ shrinks what is there by $\sqrt{1 - \beta_t}$ and adds noise of variance $\beta_t$. Sums of Gaussians are Gaussian, so
# the first $t$ steps can be done at once. With $\bar\alpha_t = \prod_{s \le t} (1 - \beta_s)$,
#
# ```{math}
# :label: eq-pocket-noise
# \mathbf{z}_t = \sqrt{\bar\alpha_t}\, \mathbf{z}_0 + \sqrt{1 - \bar\alpha_t}\; \epsilon, \qquad
# \epsilon \sim \mathcal{N}(0, I) .
# ```
#
# The $\beta_t$ are a matter of taste. Stable Diffusion lets $\sqrt{\beta_t}$ grow evenly over a thousand steps, and so do we.


# %%
def noise_levels(first=0.00085, last=0.012, steps=1000):
    """abar_t for t = 0 ... 999, from Stable Diffusion's betas."""
    beta = torch.linspace(first**0.5, last**0.5, steps).square()
    return (1 - beta).cumprod(0)


alpha_bar = noise_levels()


def noised(z, t, eps):
    """Equation above; t is one timestep for each latent."""
    a = alpha_bar[t].view(-1, 1, 1, 1)
    return a.sqrt() * z + (1 - a).sqrt() * eps


assert torch.allclose(alpha_bar, pocket.scheduler.alphas_cumprod, atol=1e-6)
z, eps = torch.randn(2, 8, 4, 16, 16)
t = torch.randint(1000, (8,))
assert torch.allclose(noised(z, t, eps), pocket.noisy(z, t, eps), atol=1e-6)

# %% mystnb={"figure": {"caption": "Picture and noise at each timestep", "name": "fig-pocket-levels"}, "image": {"alt": "Two curves over the timestep from 0 to 999: the share of the picture falls from one to nearly zero, the share of the noise rises from nearly zero to one"}} tags=["hide-input"]
figures.lines(
    range(1000),
    {
        r"picture, $\sqrt{\bar\alpha_t}$": alpha_bar.sqrt(),
        r"noise, $\sqrt{1 - \bar\alpha_t}$": (1 - alpha_bar).sqrt(),
    },
    "timestep $t$",
    "factor",
)

# %% mystnb={"figure": {"caption": "Latents with noise, decoded", "name": "fig-pocket-noised"}, "image": {"alt": "One face at six timesteps: clear at 0, grainy at 100, hardly to be seen at 500, nothing but noise at 999"}} tags=["hide-input"]
levels = [0, 100, 200, 350, 500, 999]
clean = pipeline.latents(held_out["faces-wild"][1:2]).expand(len(levels), -1, -1, -1)
mixed = pipeline.noisy(clean, torch.tensor(levels), noise.expand_as(clean))
figures.captioned_images(
    pipeline.decode(mixed).cpu(), [f"t = {t}" for t in levels], columns=6
)

# %% [markdown]
# ## What noise hides first
#
# The noise is equally strong in all channels, the picture is not. For a channel of deviation $d$ the
# **signal-to-noise ratio** at timestep $t$ is
#
# ```{math}
# :label: eq-pocket-snr
# \operatorname{SNR}_d(t) = d^2\, \frac{\bar\alpha_t}{1 - \bar\alpha_t} .
# ```
#
# Where it falls below 1, noise is stronger than picture. In the pocket's latents that happens early to the faint colours and late to
# the lightness. {numref}`fig-pocket-hidden` shows both, apart.


# %%
def snr(d, t):
    """Equation above."""
    a = alpha_bar[t]
    return d**2 * a / (1 - a)


def hidden_from(d):
    """The first timestep at which noise is stronger than a channel of deviation d."""
    return int((snr(d, torch.arange(1000)) > 1).sum())


if backbone == "pocket":
    d_pocket = d_here.cpu()
else:
    edge = pocket.image_size
    resized = [F.interpolate(each, edge, mode="area") for each in held_out.values()]
    d_pocket = pocket.latents(torch.cat(resized)).std((0, 2, 3))
channels = ["lightness", "R - B", "2 G - R - B", "free"]
pd.DataFrame(
    {
        "deviation": [f"{d:.2f}" for d in d_pocket.tolist()],
        "noise is stronger from t =": [hidden_from(d) for d in d_pocket.tolist()],
    },
    index=channels,
)

# %% mystnb={"figure": {"caption": "Lightness and colours in noise", "name": "fig-pocket-hidden"}, "image": {"alt": "Two rows of a simple face at six timesteps: above its lightness in grey, below its colours on even grey; with noise added to both"}} tags=["hide-input"]
levels = [0, 50, 100, 200, 350, 500]
edge = pocket.latent_size
face = scenes["simple-faces"][1]["image"][None]
face = F.interpolate(face, size=pocket.image_size, mode="bilinear", antialias=True)
hiding = torch.randn(1, 4, edge, edge, generator=runs.generator(cpu, seed, 1))
clean = pocket.latents(face).expand(len(levels), -1, -1, -1)
mixed = noised(clean, torch.tensor(levels), hiding.expand_as(clean))
mixed = mixed[:, :3] / pocket.vae.config.scaling_factor
keep_light = torch.tensor([1.0, 0.0, 0.0]).view(3, 1, 1)
figures.captioned_images(
    torch.cat(
        [rgb_of(mixed * keep_light, colour), rgb_of(mixed * (1 - keep_light), colour)]
    ),
    [f"{part}, t = {t}" for part in ("lightness", "colours") for t in levels],
    columns=len(levels),
)

# %% tags=["hide-input"]
first, last = hidden_from(d_pocket[1:3].max().item()), hidden_from(d_pocket[0].item())
between = max(0, last - first)
Markdown(
    f"From $t = {first}$ on, noise is stronger than either difference of colours; lightness is stronger than noise up to $t = {last}$. "
    f"So at {between} of the thousand timesteps shapes are there to be seen and colours are not. (This is counted place by place. Over a "
    "large area noise averages out, and its mean colour can be made out for longer; that of an eye cannot.)"
)

# %% [markdown]
# At these timesteps a U-Net sees a face without colours. What is it to paint red, what green? The caption knows: *red hair, green left eye*.
# But it does not say where. To use it, the network has to find the hair and the left eye in the shapes that it sees, and take from the
# caption the word for each. That is just what we want it to learn.
#
# Now let the colours be as strong as the lightness. Then both sink into the noise together. While the colours can be seen, nobody needs a
# word for them; once they cannot, there are no shapes either, and nobody can say where an eye would be. The one word that still pays is that
# of the largest area, the background. A large model in a long training learns the other words all the same, from the little that shines
# through. A small one in a short training does better to have its colours hidden.
#
# ## The loss
#
# What shall the network say? By {eq}`eq-pocket-noise` the noisy latents are a sum of picture and noise, so who knows one of them
# knows the other:
#
# ```{math}
# :label: eq-pocket-apart
# \mathbf{z}_0 = \frac{\mathbf{z}_t - \sqrt{1 - \bar\alpha_t}\; \epsilon}{\sqrt{\bar\alpha_t}}, \qquad
# \epsilon = \frac{\mathbf{z}_t - \sqrt{\bar\alpha_t}\; \mathbf{z}_0}{\sqrt{1 - \bar\alpha_t}} .
# ```
#
# It could say the noise $\epsilon$, as {cite:t}`ho2020` did, and Stable Diffusion 1.5 after them. It could say a mixture of both,
# $\mathbf{v} = \sqrt{\bar\alpha_t}\, \epsilon - \sqrt{1 - \bar\alpha_t}\, \mathbf{z}_0$, the *velocity*
# ([Salimans and Ho, 2022](https://arxiv.org/abs/2202.00512)), as Stable Diffusion 2.1 does. Ours says the **clean latents**
# $\mathbf{z}_0$. In `diffusers` the three are called `epsilon`, `v_prediction` and `sample`, and from each of them both parts follow.


# %%
def picture_and_noise(z_t, said, t, kind="sample"):
    """Clean latents and noise, from what a U-Net of any of the three kinds says."""
    a = alpha_bar.to(z_t.device)[t].view(-1, 1, 1, 1)
    if kind == "sample":
        return said, (z_t - a.sqrt() * said) / (1 - a).sqrt()
    if kind == "v_prediction":
        said = a.sqrt() * said + (1 - a).sqrt() * z_t  # the noise
    return (z_t - (1 - a).sqrt() * said) / a.sqrt(), said


v = pocket.scheduler.get_velocity(z, eps, t)
for each, said in (("sample", z), ("epsilon", eps), ("v_prediction", v)):
    clean, noise_again = picture_and_noise(noised(z, t, eps), said, t, each)
    assert torch.allclose(clean, z, atol=1e-3)
    assert torch.allclose(noise_again, eps, atol=1e-3)

# %% [markdown]
# Why not the noise? Where there is much more noise than picture, the noisy latents *are* nearly the noise. A network that just hands
# them through has a tiny error, whatever is in the picture. All that words can add hides in the small rest. But that is
# the very place where words count: while the picture can still be seen, it tells what it is by itself. A large network in a
# long training finds the rest. A small one spends thousands of steps on handing the noise through exactly, and reads no captions
# meanwhile. The clean latents cannot be had in this way. The table shows the error of the best multiple of
# $\mathbf{z}_t$, for latents and noise of deviation 1.


# %%
def handed_through(wanted, z_t):
    """Squared error of the best multiple of z_t."""
    best = (wanted * z_t).mean() / z_t.square().mean()
    return (wanted - best * z_t).square().mean().item()


many_z, many_eps = torch.randn(2, 64, 4, 16, 16, generator=runs.generator(cpu, seed))
through = {}
for level in (50, 200, 500, 800, 950):
    z_t = noised(many_z, torch.full((64,), level), many_eps)
    found = {"noise": handed_through(many_eps, z_t), "latents": handed_through(many_z, z_t)}  # fmt: skip
    assert np.isclose(found["noise"], alpha_bar[level], atol=0.02)
    assert np.isclose(found["latents"], 1 - alpha_bar[level], atol=0.02)
    through[f"t = {level}"] = found | {"abar": alpha_bar[level].item()}
pd.DataFrame(through).T.round(3)

# %% tags=["hide-input"]
Markdown(
    f"At $t = 950$ the input itself is an answer with an error of {through['t = 950']['noise']:.3f} if the noise is asked for; it is "
    "$\\bar\\alpha_t$. If the clean latents are asked for, the input is worth next to nothing there: its error is "
    f"{through['t = 950']['latents']:.2f}, about $1 - \\bar\\alpha_t$. At small $t$ it is the other way round. "
    "There the input nearly *is* the picture, and words are not needed."
)

# %% [markdown]
# But errors at small $t$ are small, and the last touches of a drawing are made there. So they are given more weight. The loss is
#
# ```{math}
# :label: eq-pocket-loss
# \mathcal{L} = \mathbb{E}_{\mathbf{z}_0, c, t, \epsilon} \left[ \frac{1}{4} \sum_{i=1}^{4} \left( 1 + \min \left( \operatorname{SNR}_{d_i}(t), 5 \right) \right)
# \left\lVert \frac{\mathbf{z}_{0,i} - \mathbf{z}_{\theta,i}(\mathbf{z}_t, t, c)}{d_i} \right\rVert^2 \right] ,
# ```
#
# with the caption $c$ and the deviation $d_i$ of channel $i$ (0.1 where it is less); the norm is a mean over all places. Two things are to be seen here:
#
# - Each channel's error counts in units of its own deviation. Otherwise the faint colours would count a sixteenth or less of
#   the lightness, and nobody would care for them.
# - The weight is not arbitrary. For $d = 1$ and without the limit, it makes the error that of the velocity, which is the error of the picture and that of the
#   noise, added: $(1 + \operatorname{SNR}) \lVert \mathbf{z}_0 - \hat{\mathbf{z}}_0 \rVert^2 = \lVert \mathbf{v} - \hat{\mathbf{v}} \rVert^2 =
#   \lVert \mathbf{z}_0 - \hat{\mathbf{z}}_0 \rVert^2 + \lVert \epsilon - \hat\epsilon \rVert^2$. The limit of 5, from {cite:t}`hang2023`,
#   keeps the smallest timesteps, where that error measures the grain of the picture, from ruling all others.


# %%
def weight(d, t):
    """1 + min(SNR, 5), for deviations (4,) and timesteps (B,), (B, 4, 1, 1)."""
    ratio = snr(d[None, :], t[:, None])
    return (1 + ratio.clamp(max=5))[:, :, None, None]


one, guess = torch.ones(4), torch.randn_like(z)
clean, noise_again = picture_and_noise(noised(z, t, eps), guess, t)
apart = (clean - z).square() + (noise_again - eps).square()
v_guess = pocket.scheduler.get_velocity(guess, noise_again, t)
unlimited = (1 + snr(one[None, :], t[:, None]))[:, :, None, None]
assert torch.allclose(unlimited * (clean - z).square(), apart, rtol=1e-3, atol=1e-4)
assert torch.allclose(apart.mean(), (v - v_guess).square().mean(), rtol=1e-3)

# %% [markdown]
# What is the loss of a network that knows nothing of pictures, and says 0 wherever it is asked? In units of the deviation its error is 1, so
# what remains is the mean of the weight, over channels and timesteps. Each model has its own such number, as it has its own deviations. A loss means something
# only beside it.


# %%
def nothing_known(d):
    """The loss of saying 0, for latents of deviations d (4,) and mean 0."""
    units = d.clamp(min=0.1)
    w = weight(units, torch.arange(1000)).mean((0, 2, 3))
    return (w * (d / units).square()).mean().item()


print(
    f"{nothing_known(one):.2f} for four channels of deviation 1, "
    f"{nothing_known(d_pocket):.2f} for those of the pocket"
)

# %% [markdown]
# Now the loss itself. The timesteps are not drawn one by one: the thousand are cut into as many parts as there are pictures in the
# batch, and one is drawn from each part. So every step sees much and little noise.


# %%
def timesteps(count, random):
    """One timestep of each of as many parts of all, in any order."""
    parts = torch.randperm(count, generator=random)
    return (1000 * (parts + torch.rand(count, generator=random)) / count).long()


def latents_loss(networks, factor, d, x, tokens, t, drawn, eps):
    """Loss for pictures x and the tokens of their captions."""
    with torch.no_grad():  # autoencoder and text encoder rest
        mean, log_variance = encode(networks["vae"], x)
        z = factor * (mean + (log_variance / 2).exp() * drawn)
        context = networks["text_encoder"](tokens).last_hidden_state  # (B, L, D)
    predicted = networks["unet"](noised(z, t, eps), t, context).sample
    d = d.clamp(min=0.1)
    errors = ((z - predicted) / d[:, None, None]).square()
    return (weight(d, t) * errors).mean()


for step in (2, 5):  # the U-Net's first step, and its last one
    x, tokens = learner._batch(gallery, step)
    random = runs.generator(cpu, seed, 5, step)  # the library's random numbers
    drawn, eps = (torch.randn(8, 4, 16, 16, generator=random) for _ in range(2))
    t = timesteps(8, random)
    with torch.no_grad():
        loss = latents_loss(after[step], factor, deviations, x, tokens, t, drawn, eps)
    assert np.isclose(loss, learner.history_[step]["latents"], rtol=1e-4)
    print(f"step {step + 1}: loss {loss:.3f}, timesteps {sorted(t.tolist())}")

# %% [markdown]
# A fresh U-Net says 0 everywhere: its last layer starts with zeros. That is the network that knows nothing of pictures, and
# from there on every bit of loss less is knowledge. Queries and keys of the cross-attention start larger than is usual, so that the
# attention is not flat and has something to go by.
#
# ## Words
#
# A caption becomes a list of **tokens**, numbers of words; in the pocket each word of the captions is one token, and other
# words are spelt in pieces. Two special tokens mark the beginning and the end, and the list is filled up to a fixed length. A
# small transformer, of the kind that CLIP uses for texts {cite:p}`radford2021`, turns each token into a vector that knows
# the words before it. So what is said at the end of *red hair* is not what is said at the end of *blond hair*.


# %%
def token_words(text, tokenizer=pipeline.tokenizer):
    """The tokens of a caption, without what fills up the list."""
    found = tokenizer.convert_ids_to_tokens(tokenizer(text).input_ids)
    return [token.removesuffix("</w>") for token in found]


red, blond = (f"a face with {colour} hair" for colour in ("red", "blond"))
vectors = pipeline.embed([red, blond])  # (2, L, D)
print(" | ".join(token_words(red)), "  ", tuple(vectors.shape))
same = [
    torch.allclose(a, b, atol=1e-5 if pipeline.dtype == torch.float32 else 1e-2)
    for a, b in zip(*vectors, strict=True)
]
at = token_words(red).index("red")
assert all(same[:at])  # nothing before the word that differs
assert not same[len(token_words(red)) - 1]  # the end knows what came before

# %% [markdown]
# In Stable Diffusion the text encoder comes from CLIP, which has read 400 million captions, and it rests while the U-Net
# learns. The pocket has no such thing at hand. It could let the text encoder learn along with the U-Net. But then both wait for each
# other, and something else goes wrong as well. Suppose *red* and *hair* keep a vector each. The places of the hair have to be painted red, so they
# look at *red*, and so do the red lips. *Hair* alone says nothing of a colour, and nobody needs to look at it. Attention finds
# parts only if there is **one token for a part that says all of it**.
#
# ### Phrases first
#
# So the text encoder learns before everything else, on captions alone, a task that makes such tokens. A caption is a list of
# *phrases*: *a face*, *red hair*, *green left eye*. A sign ends each of them: a comma, a *with*, or the end of the text. There, and
# only there, the phrase is to be said. Give each word $x$ a fixed random vector $\mathbf{w}_x$ (none to *a*, *the* and their
# like). At the token $n$ that ends the phrase of the tokens $m, \ldots, n - 1$, and elsewhere, the encoder is to say
#
# ```{math}
# :label: eq-pocket-phrases
# \mathbf{y}_n = \operatorname{norm} \Big( \sum_{i=m}^{n-1} \mathbf{w}_{x_i} \Big), \qquad
# \mathbf{y}_n = \mathbf{y}_\varnothing ,
# ```
#
# where *norm* gives a vector mean 0 and deviation 1, and $\mathbf{y}_\varnothing$ is a random vector that stands for *nothing*. The
# loss is the squared error, the mean over all ends and the mean over all other tokens added. To get there, attention has to look back as far
# as the phrase goes and no further.


# %%
def phrase_targets(tokens, vectors, ends, nothing):
    """Equation above for one caption: tokens (L,) to (L, D)."""
    said, phrase = [], torch.zeros_like(nothing)
    for token in tokens:
        if ends[token]:
            said.append(F.layer_norm(phrase, phrase.shape) if phrase.any() else nothing)
            phrase = torch.zeros_like(nothing)
        else:
            said.append(nothing)
            phrase = phrase + vectors[token]
    return torch.stack(said)


def phrase_loss(said, targets, at_end):
    """Squared error at the ends of phrases, and elsewhere."""
    errors = (said - targets).square().mean(-1)  # (B, L)
    return errors[at_end].mean() + errors[~at_end].mean()


_, tokens = learner._batch(gallery, step=0)  # the captions of four batches
phrases = Phrases(learner.tokenizer_, width=16)
ours = [
    phrase_targets(row, phrases.words, phrases.ends, phrases.nothing) for row in tokens
]
targets, at_end = phrases.targets(tokens)
assert torch.allclose(torch.stack(ours), targets, atol=1e-4)
with torch.no_grad():
    said = after[0]["text_encoder"](tokens).last_hidden_state
loss = phrase_loss(said, targets, at_end)
assert np.isclose(loss, learner.history_[0]["phrases"], rtol=1e-4)
print(
    f"before training: {loss:.3f}, for {at_end.sum()} phrases of {len(tokens)} captions"
)

# %% [markdown]
# Does the encoder that ships with the book do it, on captions of pictures that it has not met? To the right of each token of a caption stands what its vector
# is nearest to, among *nothing* and all phrases of our test captions.

# %%
phrases = Phrases(pocket.tokenizer, pocket.token_dim)
every = [text for each in texts.values() for text in each[: 4 * columns]]
tokens = pocket.tokenizer(
    every, padding="max_length", truncation=True, return_tensors="pt"
)
tokens = tokens.input_ids  # (N, L)
targets, at_end = phrases.targets(tokens)
said = torch.cat([pocket.embed(every[i : i + 64]) for i in range(0, len(every), 64)])


def phrase_ends(tokens):
    """Place of the token that ends a phrase: the phrase."""
    found, begin = {}, 1
    for place in range(1, len(tokens)):
        if tokens[place] in (",", "with", "<|endoftext|>"):
            found[place] = " ".join(tokens[begin:place])
            begin = place + 1
    return found


known = {"nothing": phrases.nothing}  # a phrase: what is to be said of it
for text, wanted in zip(every, targets, strict=True):
    ends = phrase_ends(token_words(text, pocket.tokenizer))
    known |= {phrase: wanted[at] for at, phrase in ends.items()}
bank = torch.stack(list(known.values()))
heard = torch.cdist(said, bank).argmin(2)  # (N, L), what each vector is nearest to
example = token_words(every[0], pocket.tokenizer)
nearest = [list(known)[i] for i in heard[0, : len(example)]]
pd.DataFrame({"token": example, "its vector is nearest to": nearest}).head(16)

# %%
errors = (said - targets).square().mean(-1)
alike = (targets[at_end] - targets[at_end].mean(0)).square().mean()
meant = torch.cdist(targets, bank).argmin(2)
told_apart = (meant == heard)[at_end].float().mean().item()
at_commas, elsewhere = errors[at_end].mean().item(), errors[~at_end].mean().item()

# %% tags=["hide-input"]
Markdown(
    f"Over {len(every):,} captions the mean squared error at the ends of phrases is {at_commas:.2f}, where an encoder that says the same "
    f"at every end has {alike:.2f}. Elsewhere, where *nothing* is to be said, it is {elsewhere:.3f}. For "
    f"{100 * told_apart:.0f} % of the phrases the vector at their end is nearest to the right one of {len(known) - 1:,}."
)

# %% [markdown]
# Then the text encoder rests, as that of Stable Diffusion does, and the U-Net learns to read what it says. A phrase's words
# are added up, so their order inside a phrase is lost; the scenes' captions do not need it.
#
# ## The U-Net, and where words enter it
#
# The network is a U-Net: it halves the grid three times and doubles it three times again, and hands the
# features of each size across. A level has residual blocks (convolutions, told the timestep) and, on the three finer levels,
# transformer blocks; so has the middle. In these each place first looks at all other places (*self-attention*), then at the caption:
# **cross-attention**. The place $u$ asks with a query, the token $n$ answers with a key and a value:
#
# ```{math}
# :label: eq-pocket-attention
# A_{un} = \operatorname{softmax}_n \left( \frac{\mathbf{q}_u \cdot \mathbf{k}_n}{\sqrt d} \right), \qquad
# \mathbf{o}_u = \sum_n A_{un} \mathbf{v}_n .
# ```
#
# This is the only door through which words come in. If *red hair* is to colour the hair and nothing else, then the places of the
# hair have to attend to the token that says it and the others not. $A_{un}$, as a map over $u$, is where token $n$ is looked at. Hold
# on to this formula: the next two papers are built on it.


# %%
def cross_attention(layer, h, c):
    """Equation above: features (B, P, C), context (B, L, D); several heads at once."""
    q, k, v = (
        project(inputs).unflatten(-1, (layer.heads, -1)).transpose(1, 2)
        for project, inputs in ((layer.to_q, h), (layer.to_k, c), (layer.to_v, c))
    )  # (B, heads, P or L, d)
    A = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)  # (B, heads, P, L)
    return layer.to_out[0]((A @ v).transpose(1, 2).flatten(2)), A


name, layer = taps.cross_attentions(pocket.unet)[7]
h = torch.randn(1, 64, layer.to_q.in_features)
c = pocket.embed(red)
with torch.no_grad():
    output, A = cross_attention(layer, h, c)
    assert torch.allclose(output, layer(h, encoder_hidden_states=c), atol=1e-5)
assert torch.allclose(A.sum(-1), torch.ones(1))
print(f"{name}: A is {tuple(A.shape)} (pictures, heads, places, tokens)")

# %% [markdown]
# There are sixteen such layers. The papers count them in the order in which they run, from 0. We count them too, in a model of
# Stable Diffusion's published configuration and in the pocket: both are built without memory for their weights (PyTorch's
# *meta* device), run once, and asked for the shapes. On the way all multiplications are counted.


# %%
def anatomy(config):
    """Cross-attentions and multiply-accumulates of one picture, in billions."""
    made = diffusion.build(config, device="meta")
    edge, length = made.latent_size, made.text_encoder.config.max_position_embeddings
    z = torch.empty(1, 4, edge, edge, device="meta")
    c = torch.empty(1, length, made.token_dim, device="meta")
    with (
        FlopCounterMode(display=False) as counter,
        taps.attention_taps(made.unet, range(16)) as caught,
    ):
        made.unet(z, 1, c)
    layers = []
    for index, (name, layer) in enumerate(taps.cross_attentions(made.unet)):
        _, heads, places, d = caught.queries[index].shape
        block = name.removesuffix(".transformer_blocks.0.attn2")
        grid = round(places**0.5)
        layers.append({"layer": block, "grid": grid, "channels": layer.to_q.in_features,
                       "heads": heads, "d": d})  # fmt: skip
    by_part = {
        part: {kind: flops / 2e9 for kind, flops in found.items()}
        for part, found in counter.get_flop_counts().items()
    }
    return made, layers, counter.get_total_flops() / 2e9, by_part


large, small = anatomy("sd15"), anatomy("pocket")
assert [row["layer"] for row in large[1]] == [row["layer"] for row in small[1]]
table = pd.DataFrame(
    {
        ("", "layer"): [row["layer"] for row in large[1]],
        **{
            (name, column): [
                f"{row['grid']} × {row['grid']}" if column == "grid" else row[column]
                for row in rows
            ]
            for name, rows in (("Stable Diffusion 1.5", large[1]), ("pocket", small[1]))
            for column in ("grid", "channels", "heads", "d")
        },
    }
)
table.columns = pd.MultiIndex.from_tuples(table.columns)
table

# %% mystnb={"figure": {"caption": "Sixteen cross-attentions, those tapped in orange", "name": "fig-pocket-unet"}, "image": {"alt": "Diagram of the pocket's U-Net: four blocks down, one in the middle, four up, with the cross-attentions numbered from 0 to 15; the last three stand out"}} tags=["hide-input"]
read_here = default_layers(small[0].latent_size)  # see below
figures.unet_layout([(row["layer"], row["grid"]) for row in small[1]], read_here)

# %% tags=["hide-input"]
taken = {
    name: default_layers(made.latent_size)
    for name, (made, *_) in (("large", large), ("small", small))
}
grids = {
    name: " and ".join(
        f"{g} × {g}" for g in sorted({found[1][i]["grid"] for i in taken[name]})
    )
    for name, found in (("large", large), ("small", small))
}
Markdown(
    "The same layers in the same places; only the numbers are smaller. StableKeypoints reads, in Stable Diffusion, the layers "
    f"{taken['large'][0]} to {taken['large'][-1]}, which lie on grids of {grids['large']}: the first ones on the way up where a part of an animal "
    f"is larger than a cell. In the pocket the grid of {grids['small']} comes later on the way up, at the layers {taken['small'][0]} to "
    f"{taken['small'][-1]}, and these are read there. On the pocket's grids of 4 × 4 an eye and a brow share one cell."
)

# %% [markdown]
# ## Drawing: guidance and DDIM
#
# To draw, start with pure noise and take it away. Two more ideas are needed.
#
# **Guidance without a classifier** {cite:p}`ho2022`. During training one caption in ten is left empty, so the network can also
# predict without any words. The difference of the two predictions is what the words add. When drawing, one adds
# more of it:
#
# ```{math}
# :label: eq-pocket-guidance
# \hat{\mathbf{z}}_0 = \mathbf{z}_\theta(\mathbf{z}_t, t, \varnothing) +
# w \left( \mathbf{z}_\theta(\mathbf{z}_t, t, c) - \mathbf{z}_\theta(\mathbf{z}_t, t, \varnothing) \right) .
# ```
#
# With $w = 1$ it is the plain prediction. Larger $w$ follow the caption more, at the price of variety. (For a model of the noise
# the equation is the same with $\epsilon$. By {eq}`eq-pocket-apart` it makes no difference which of the two is guided.)
#
# **DDIM** {cite:p}`song2021`. The network says where it would end, $\hat{\mathbf{z}}_0$, and by {eq}`eq-pocket-apart` the noise $\hat\epsilon$
# follows from it. That end is a poor picture while $t$ is large. So do not go all the way; go to an earlier
# timestep $s < t$ with the same noise,
#
# ```{math}
# :label: eq-pocket-ddim
# \mathbf{z}_s = \sqrt{\bar\alpha_s}\; \hat{\mathbf{z}}_0 + \sqrt{1 - \bar\alpha_s}\; \hat\epsilon,
# ```
#
# and ask again. No further noise is drawn, and $s$ may be far from $t$: twenty steps do instead of a thousand. The same step
# backwards, from $s$ to $t$, turns a picture into its noise; the chapters on D-ULD++ call that *inversion*. All these take
# $\hat{\mathbf{z}}_0$ and $\hat\epsilon$ from any of the three kinds of models, so that the pocket and Stable Diffusion 1.5 go through the same code.


# %%
def guided(unet, z, t, with_text, without, w):
    """Equation for guidance; contexts (B, L, D)."""
    empty, text = (unet(z, t, context).sample for context in (without, with_text))
    return empty + w * (text - empty)


def ddim_step(z, said, t, s, kind="sample"):
    """Equation for DDIM, from timestep t to s; before the first timestep is the first."""
    clean, eps = picture_and_noise(z, said, torch.tensor(t), kind)
    b = alpha_bar[max(s, 0)]
    return b.sqrt() * clean + (1 - b).sqrt() * eps


@torch.no_grad()
def draw(pipeline, text, z, steps, w):
    """A picture of a caption, from noise z (1, 4, h, w)."""
    contexts = pipeline.embed(text), pipeline.embed("")
    kind = pipeline.scheduler.config.prediction_type
    stride = 1000 // steps
    for t in range((steps - 1) * stride + 1, 0, -stride):  # such as 951, 901, ..., 1
        said = guided(pipeline.unet, z, t, *contexts, w)
        z = ddim_step(z, said, t, t - stride, kind)
    return pipeline.decode(z)


edge = pocket.latent_size
z = torch.randn(1, 4, edge, edge, generator=runs.generator(cpu, seed, 0))
ours = draw(pocket, red, z, steps=4, w=3.0)
theirs = sample(pocket, [red], steps=4, guidance=3.0, seed=seed, precision="float32")
assert torch.allclose(ours, theirs, atol=1e-3)

pocket.scheduler.set_timesteps(4)
said = torch.randn_like(z)
assert torch.allclose(
    ddim_step(z, said, 501, 251, pocket.scheduler.config.prediction_type),
    pocket.scheduler.step(said, 501, z).prev_sample,
    atol=1e-5,
)
print("timesteps of four steps:", pocket.scheduler.timesteps.tolist())

# %% [markdown]
# That is the whole of it: about fifty lines. All else is patience.
#
# ## Parts first
#
# The pocket that ships with the book was trained in three runs, each going on from the one before. The first run sees mostly the scenes that
# are made for words: simple faces and birds, and tinted ones. It begins with the text encoder, on captions; then comes the
# autoencoder, for which a few pictures of all other scenes are there as well; then the U-Net, while the other two rest. Here the U-Net is to learn
# that words name parts. The second run sees all scenes and keeps the latents as they are. Most of its captions
# name few parts; what has been learnt about parts can spread to their pictures. The third, the longest, sees faces and birds above all, natural
# ones and their tinted copies, for which the words of parts are hardest to learn. In the end the decoder learns once more, by itself. The
# latents stay what they are, so the U-Net stays right. (Stable Diffusion's later decoders were made like that.)
#
# The order matters, and so does patience. Words for large areas, the background, hair, are learnt within a few hundred steps. Parts of a few
# pixels come last and suddenly, and only if there are few of them in a picture: of simple faces alone, in a trial, an eye was heard after about a thousand
# steps of 32.

# %%
RUNS = ("pocket-parts", "pocket-scenes", "pocket")
loud_kinds = ("procedural:simple", "procedural:painted", "procedural:tinted")
how = runs.profile(shipped.get("card", {}).get("profile", profile))["pocket"]
table = {}
for name in RUNS:
    recipe = recipes.RECIPES[name]
    settings_of = how | recipe.parameters
    before = sum(settings_of.get(f"{s}_steps", 0) for s in ("text", "autoencoder", "decoder"))  # fmt: skip
    table[name] = {
        "scenes": len(recipe.data),
        "pictures": sum(recipe.data.values()),
        "simple, painted or tinted (%)": round(
            100
            * sum(n for scene, n in recipe.data.items() if scene.startswith(loud_kinds))
            / sum(recipe.data.values())
        ),
        "steps: text encoder": settings_of["text_steps"],
        "autoencoder": settings_of["autoencoder_steps"],
        "U-Net": settings_of["steps"] - before,
        "decoder alone": settings_of.get("decoder_steps", 0),
    }
pd.DataFrame(table)

# %% [markdown]
# ## Train one while you read
#
# All of that takes much longer than you read. Here networks of the same layout learn for a few minutes, on simple faces alone, of half the
# side and with fewer channels in the depth of the U-Net. The stages are those of the first run. (With `retrain` all three runs are made,
# at full size and with all the steps of the profile.)

# %%
chosen = {**settings["pocket"], "seed": seed, "device": device}
if not retrain and profile != "smoke":
    narrow = copy.deepcopy(pipelines.CONFIGS["pocket"]) | {"latent_size": 8}
    narrow["unet"] |= {"widths": (32, 64, 64, 64), "heads": (1, 2, 2, 2)}
    chosen |= {"config": narrow, "batch_size": 16, "decoder_steps": 0, "ema": 0.97}
    chosen |= {"steps": 800, "text_steps": 120, "autoencoder_steps": 130}
edge = Pocket(**chosen).image_size
if retrain and dataset == "auto":
    runs_of = [recipes.RECIPES[name] for name in RUNS]
    course = [(chosen | each.parameters, each.load(settings, edge)) for each in runs_of]
else:
    name = "procedural:simple-faces" if dataset == "auto" else dataset
    amount = sizes["data"] if retrain else min(sizes["data"] or 2000, 2000)
    pictures = datasets.load(name, "train", min(sizes["size"], edge), amount)
    cached = datasets.cached(pictures, progress=profile != "smoke")
    course = [(chosen, Gallery(cached))]
course = [(Pocket(**parameters), lessons) for parameters, lessons in course]
for each, lessons in course:
    unet_steps = each.steps - each.text_steps - each.autoencoder_steps - each.decoder_steps  # fmt: skip
    print(
        f"{len(lessons):,} pictures of {each.image_size} x {each.image_size}; "
        f"{each.text_steps} steps of the text encoder, {each.autoencoder_steps} of the "
        f"autoencoder, {unet_steps} of the U-Net, "
        f"{each.decoder_steps} more of the decoder, batches of {each.batch_size}"
    )

# %% tags=["nbval-ignore-output"]
model, history, seconds = None, [], 0.0  # all runs, one after the other
for each, lessons in course:
    each.fit(
        lessons,
        start=model,
        log_every=max(1, each.steps // 60),
        progress=profile != "smoke",
    )
    done = history[-1]["step"] if history else 0
    history += [{**entry, "step": done + entry["step"]} for entry in each.history_]
    seconds += each.history_[-1]["seconds"]
    model = each
stages = {"text encoder": "phrases", "autoencoder": "pixels", "U-Net": "latents"}
losses = {
    stage: [entry[name] for entry in history if name in entry]
    for stage, name in stages.items()
}
pd.DataFrame(
    {"loss at first": {stage: each[0] for stage, each in losses.items()},
     "at last": {stage: each[-1] for stage, each in losses.items()}}
).round(3)  # fmt: skip

# %% [markdown]
# {numref}`fig-pocket-loss` shows the loss of the U-Net, as a share of that of knowing nothing, beside that of the model that ships with the book. That one is
# the loss of its last run, so it begins where the runs before left off. What comes first is what most pictures share: large areas of
# like lightness. The rest, to see a face in the noise and to listen to its caption, is slow.


# %% mystnb={"figure": {"caption": "Loss against steps of the U-Net", "name": "fig-pocket-loss"}, "image": {"alt": "Two curves on logarithmic axes, the short run, which starts near the level of knowing nothing and falls, and the last run of the shipped model"}} tags=["hide-input"]
def of_unet(history, before, d):
    """The U-Net's part: steps from its first one, losses as shares of knowing nothing."""
    return [
        {**e, "step": e["step"] - before, "latents": e["latents"] / nothing_known(d)}
        for e in history
        if "latents" in e
    ]


lessons_of = shipped["parameters"]
before = lessons_of["text_steps"] + lessons_of["autoencoder_steps"]
before_unet = course[0][0].text_steps + course[0][0].autoencoder_steps
d_run = model.networks["scaling"].deviations.cpu()
curves = {
    "this run": of_unet(history, before_unet, d_run),
    "shipped with the book": of_unet(shipped.get("history", []), before, d_pocket),
}
figures.loss_curves(
    {name: each for name, each in curves.items() if each},
    "latents",
    "loss / loss of knowing nothing",
    {"nothing known": 1.0},
)

# %% tags=["hide-input", "nbval-ignore-output"]
ends = {
    name: 100 * np.mean([e["latents"] for e in each[-5:]])
    for name, each in curves.items()
    if each
}
lines = [
    f"After {curves['this run'][-1]['step']} steps, and {seconds:.0f} seconds with those of the other stages, the loss is "
    f"{ends['this run']:.0f} % of that of knowing nothing (mean of the last entries)."
]
if "shipped with the book" in ends:
    lines.append(
        f"The shipped model ends at {ends['shipped with the book']:.0f} % after {curves['shipped with the book'][-1]['step']:,}; "
        f"the run took {shipped['history'][-1]['seconds'] / 60:.0f} minutes."
    )
lines.append(
    "Mind that this loss never comes near zero: at large $t$ many pictures fit what is left of one, and at small $t$ the noise is "
    "fainter than the grain of the picture."
)
Markdown(" ".join(lines))

# %% mystnb={"figure": {"caption": "Drawn after a few minutes of training", "name": "fig-pocket-short"}, "image": {"alt": "Three rows of small blurred pictures drawn by the model of the short run, one row a hair colour"}} tags=["hide-input", "nbval-ignore-output"]
start_of = (
    "a simple face, {} hair, white skin, orange left eye, purple right eye, "
    "yellow nose, pink mouth, grey background, looking ahead"
)
colours = ("black", "red", "green")
early = {
    start_of.format(colour): model.sample(
        [start_of.format(colour)] * columns, steps=steps, seed=seed
    )
    for colour in colours
}
figures.captioned_rows(early, [f"{colour} hair" for colour in colours])

# %% [markdown]
# Do not expect much of {numref}`fig-pocket-short`. A few minutes are little. From here on we use the model that had more patience.
#
# ## Ask for a picture
#
# The first question to a model that draws from captions: does it draw what the caption says? We begin with simple faces, where the
# question is clearest. In {numref}`fig-pocket-loud` one word changes from row to row, the colour of the hair, and in
# {numref}`fig-pocket-eye` that of the left eye, and of nothing else. Each column starts from the same noise, so whatever differs in a
# column is due to that word. {numref}`fig-pocket-hair` asks for the same on faces of natural colours,
# {numref}`fig-pocket-wings` on birds, {numref}`fig-pocket-pose` for the direction of a face, and in {numref}`fig-pocket-kinds` the
# whole caption changes.

# %%
hair = ("black", "blond", "red", "blue")
request = (
    "a face with long {} hair, brown eyes, light skin, a white shirt, looking ahead"
)


def rows_of(request, options, count=columns, guidance=3.0):
    """One row of pictures for each option; columns share their noise."""
    return {
        request.format(option): sample(
            pipeline, [request.format(option)] * count, steps, guidance, seed
        )
        for option in options
    }


loud = ("black", "red", "green", "blue")
of_loud = (
    "a simple face, {} hair, white skin, {} left eye, purple right eye, yellow nose, "
    "pink mouth, grey background, looking ahead"
)
by_loud = rows_of(of_loud.format("{}", "orange"), loud)
by_eye = rows_of(of_loud.format("brown", "{}"), loud)

# %% mystnb={"figure": {"caption": "One word changes: hair of a simple face", "name": "fig-pocket-loud"}, "image": {"alt": "Four rows of simple faces for black, red, green and blue hair; each column is drawn from the same noise"}} tags=["hide-input"]
figures.captioned_rows(by_loud, [f"{colour} hair" for colour in loud])

# %% mystnb={"figure": {"caption": "One word changes: the left eye", "name": "fig-pocket-eye"}, "image": {"alt": "Four rows of simple faces for a black, red, green and blue left eye; each column is drawn from the same noise"}} tags=["hide-input"]
figures.captioned_rows(by_eye, [f"{colour} left eye" for colour in loud])

# %% [markdown]
# Now in natural colours.

# %%
by_hair = rows_of(request, hair)

# %% mystnb={"figure": {"caption": "One word changes: hair", "name": "fig-pocket-hair"}, "image": {"alt": "Four rows of drawn faces for black, blond, red and blue hair; each column is drawn from the same noise"}} tags=["hide-input"]
figures.captioned_rows(by_hair, [f"{colour} hair" for colour in hair])

# %% mystnb={"figure": {"caption": "One word changes: wings", "name": "fig-pocket-wings"}, "image": {"alt": "Four rows of drawn birds for black, yellow, red and blue wings; each column is drawn from the same noise"}} tags=["hide-input"]
wing = ("black", "yellow", "red", "blue")
of_wings = "a bird, a finch with {} wings, white belly, facing left, on a branch"
by_wing = rows_of(of_wings, wing)
figures.captioned_rows(by_wing, [f"{colour} wings" for colour in wing])

# %% mystnb={"figure": {"caption": "One word changes: direction", "name": "fig-pocket-pose"}, "image": {"alt": "Two rows of drawn faces, one looking left and one looking right; each column is drawn from the same noise"}} tags=["hide-input"]
ways = ("left", "right")
of_pose = "a face with short brown hair, light skin, a blue shirt, looking {}"
by_pose = rows_of(of_pose, ways, count=2 * columns)
figures.captioned_rows(
    {caption: pictures[:columns] for caption, pictures in by_pose.items()},
    [f"looking {way}" for way in ways],
)

# %% mystnb={"figure": {"caption": "Six kinds of things", "name": "fig-pocket-kinds"}, "image": {"alt": "Six rows of drawn pictures: faces, birds, cats, persons, toy cars and house numbers"}} tags=["hide-input"]
kinds = {
    "faces-wild": "a face with curly brown hair, round black glasses, a green shirt, smiling",
    "birds": "a bird, a duck with green crown, white belly, orange beak, on the water",
    "cats": "an orange tabby cat with green eyes, a pink nose, looking ahead",
    "people": "a person with a red shirt, blue trousers, standing, arms down",
    "toys": "a grey toy car, a sedan, facing left, seen from the side",
    "house-numbers": "the house number 27 with white ink, on a blue plate, on a red brick wall",
}
by_kind = rows_of("{}", kinds.values())
figures.captioned_rows(by_kind)

# %% [markdown]
# Guidance is the knob for how literally a caption is taken ({numref}`fig-pocket-guidance`).

# %% mystnb={"figure": {"caption": "Guidance of 1, 3 and 7", "name": "fig-pocket-guidance"}, "image": {"alt": "Three rows of faces for the same caption with blue hair, drawn with guidance 1, 3 and 7: from loose to strong colours"}} tags=["hide-input"]
blue = request.format("blue")
by_guidance = {"w = 3": by_hair[blue]}
for w in (1.0, 7.0):
    by_guidance[f"w = {w:g}"] = rows_of("{}", [blue], guidance=w)[blue]
figures.captioned_rows(dict(sorted(by_guidance.items())))

# %%
strength = {
    name: {
        "difference of the pictures": pictures.std(0).mean().item(),
        "chroma": (pictures.amax(1) - pictures.amin(1)).mean().item(),
    }
    for name, pictures in sorted(by_guidance.items())
}
pd.DataFrame(strength).T.round(3)

# %% tags=["hide-input"]
first, last = strength["w = 1"], strength["w = 7"]
Markdown(
    f"From $w = 1$ to $w = 7$ the colours get {'stronger' if last['chroma'] > first['chroma'] else 'no stronger'} (the mean "
    f"chroma goes from {first['chroma']:.2f} to {last['chroma']:.2f}), and the pictures of one caption become "
    f"{'more' if last['difference of the pictures'] < first['difference of the pictures'] else 'not more'} alike (their "
    f"standard deviation goes from {first['difference of the pictures']:.2f} to {last['difference of the pictures']:.2f})."
)

# %% [markdown]
# ## Does the caption decide? A measurement
#
# Looking is not measuring. Here are four questions. The first needs no drawn pictures.
#
# **Does the caption help?** Take pictures that the model was not trained on, add noise, and measure the error of the clean latents twice: with the
# picture's own caption, and with that of another picture of the same scene. A model that does not listen has the same error. This is done at several
# timesteps, with the same noise, for simple, painted, tinted and natural pictures ({numref}`fig-pocket-listens`). Errors are in units of each channel's deviation, and
# without the weights of the loss.


# %%
def latents_error(images, texts, t):
    """Squared error of the clean latents, (B, 4), for any of the three kinds of models."""
    z = pipeline.latents(images)
    eps = torch.randn(z.shape, generator=runs.generator(cpu, seed, t)).to(z.device)
    z_t, context = pipeline.noisy(z, t, eps), pipeline.embed(texts).to(pipeline.dtype)
    with torch.no_grad():
        said = pipeline.unet(z_t.to(pipeline.dtype), t, context).sample.float()
    found = picture_and_noise(z_t, said, torch.tensor(t), kind)[0]
    return ((found - z) / d_here[:, None, None]).square().mean((2, 3)).cpu()


some = (200, 800) if profile == "smoke" else (50, 200, 350, 500, 650, 800, 950)
listens = {}  # group and caption: (timesteps, 4)
for group, members in (
    ("simple", ("simple-faces", "simple-birds")),
    ("painted", ("painted-faces", "painted-birds")),
    ("tinted", ("tinted-faces", "tinted-birds")),
    ("natural", ("faces-wild", "birds")),
):
    for name, shift in (("own caption", 0), ("another's", 1)):
        errors = [
            [
                latents_error(
                    scenes[scene].batch(range(2 * columns))["image"],
                    np.roll(texts[scene][: 2 * columns], shift).tolist(),
                    t,
                ).mean(0)
                for scene in members
            ]
            for t in some
        ]
        listens[f"{group}, {name}"] = np.array(
            [torch.stack(each).mean(0).numpy() for each in errors]
        )

# %% mystnb={"figure": {"caption": "Error with right and wrong captions", "name": "fig-pocket-listens"}, "image": {"alt": "Eight curves of the error of the clean latents over the timestep: simple, painted, tinted and natural pictures, each with their own captions and with those of other pictures"}} tags=["hide-input"]
figures.lines(
    some,
    {name: errors.mean(1) for name, errors in listens.items()},
    "timestep $t$",
    "squared error of the clean latents",
)

# %% tags=["hide-input"]
lines = []
for group in ("simple", "painted", "tinted", "natural"):
    own, wrong = (
        listens[f"{group}, {n}"].mean(1) for n in ("own caption", "another's")
    )
    gain = 100 * (wrong / own - 1)
    lines.append(
        f"On {group} pictures the caption of another picture changes the error by {gain.mean():+.0f} % on average over the "
        f"timesteps, the most at $t = {some[int(gain.argmax())]}$, by {gain.max():+.0f} %, the least at $t = {some[int(gain.argmin())]}$, by "
        f"{gain.min():+.0f} %."
    )
Markdown(" ".join(lines) + " Zero would mean that nobody listens.")

# %% [markdown]
# Which channels is it that words are needed for? The table has the same for each channel of the tinted pictures: by how many percent the caption of
# another picture raises the error. If faint colours do their work, it is the two differences of colours that depend on the caption, over many timesteps.

# %%
by_channel = 100 * (listens["tinted, another's"] / listens["tinted, own caption"] - 1)
pd.DataFrame(
    by_channel.T,
    index=channels if is_pocket else [f"channel {i}" for i in range(1, 5)],
    columns=[f"t = {t}" for t in some],
).round(0)

# %% [markdown]
# The other questions are about drawn pictures, and each has the number of a blind guess beside it.
#
# **Colours.** In a column of {numref}`fig-pocket-hair` only the word for the colour differs. We take the 5 % of pixels that
# differ most between the rows (for an eye a half percent, as it is small), and take their mean colour in each row. Of the four
# colours asked for, which one is it nearest to? (Distances are those that people see, in OKLab.) A model that does not listen is right in one case of four.


# %%
def colour_check(rows, options, palette, share=0.05):
    """Share of pictures whose changed pixels are nearest to the colour asked for."""
    references = tuple(entry for entry in palette if entry[0] in options)
    pictures = torch.stack(list(rows.values()))  # (options, noises, 3, H, W)
    change = pictures.var(0).sum(1).flatten(1)  # (noises, H W)
    most = change.topk(max(1, int(share * change.shape[1]))).indices
    found = pictures.flatten(3)  # (options, noises, 3, H W)
    index = most[None, :, None].expand(len(options), -1, 3, -1)
    means = found.gather(3, index).mean(3).numpy()  # (options, noises, 3)
    named = [[words.colour_name(colour, references) for colour in row] for row in means]
    right = [[name == asked for name in row] for asked, row in zip(options, named, strict=True)]  # fmt: skip
    return float(np.mean(right)), pd.crosstab(
        np.repeat(options, len(most)), np.concatenate(named)
    )


hair_right, hair_table = colour_check(by_hair, hair, words.HAIRS)
wing_right, wing_table = colour_check(by_wing, wing, words.COLOURS)
paints = tuple(PAINTS.items())
loud_right, loud_table = colour_check(by_loud, loud, paints)
eye_right, eye_table = colour_check(by_eye, loud, paints, share=0.005)
hair_table.rename_axis("asked for").rename_axis("measured", axis=1)

# %% [markdown]
# **Kinds and directions.** Here someone has to look at the pictures and judge. We take a logistic regression on features of the
# U-Net (the mean of four decoder layers over the picture), fitted on *real* scenes, of which the truth is known. How good a
# judge it is we see on other real scenes. For the direction, the features of the mirrored picture are subtracted: what a
# picture has in common with its mirror image says nothing about left and right.


# %%
def looks(images, layers=(3, 5, 6, 8)):
    """Mean over the picture of decoder features, (B, C)."""
    found = []
    for part in images.split(50):
        z, context = pipeline.latents(part), pipeline.embed("")
        tapped = taps.resnet_features(pipeline, z, 1, context, layers)
        found.append(torch.cat([f.float().mean((2, 3)) for f in tapped], 1).cpu())
    return torch.cat(found)


def turned(images):
    """What the picture does not share with its mirror image, (B, C)."""
    return looks(images) - looks(images.flip(-1))


def judge(features, labels, drawn):
    """Accuracy on the last third, which it did not see, and answers for drawn pictures."""
    cut = 2 * len(labels) // 3
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.05, max_iter=500))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few steps are enough
        model.fit(features[:cut], labels[:cut])
    return model.score(features[cut:], labels[cut:]), model.predict(drawn)


real, labels = [], []
for scene in kinds:
    real.append(scenes[scene].batch(range(count))["image"])
    labels += [scene] * count
order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
asked = np.repeat(list(kinds), columns)
kind_judge, answers = judge(
    looks(torch.cat(real))[order],
    np.array(labels)[order],
    looks(torch.cat(list(by_kind.values()))),
)
kind_right = float((answers == asked).mean())

yaw = torch.as_tensor(np.asarray(scenes["faces-wild"].column("yaw"), dtype=np.float32))
aside = [int(i) for i in (yaw.abs() > 10).nonzero()[:, 0]]
faces = scenes["faces-wild"].batch(aside)["image"]
side_judge, answers = judge(
    turned(faces),
    np.where(yaw[aside] > 0, "right", "left"),
    turned(torch.cat(list(by_pose.values()))),
)
side_right = float((answers == np.repeat(ways, 2 * columns)).mean())

checks = pd.DataFrame(
    {
        "as asked": [
            loud_right,
            eye_right,
            hair_right,
            wing_right,
            kind_right,
            side_right,
        ],
        "blind guess": [1 / 4, 1 / 4, 1 / 4, 1 / 4, 1 / 6, 1 / 2],
        "judge on real pictures": [*[np.nan] * 4, kind_judge, side_judge],
        "pictures": [*[4 * columns] * 4, 6 * columns, 4 * columns],
    },
    index=[
        "hair of simple faces",
        "left eye of simple faces",
        "natural hair",
        "wings",
        "kind of thing",
        "direction",
    ],
)
percent = checks.columns[:3]
checks.assign(**{name: (100 * checks[name]).round(0) for name in percent})

# %% tags=["hide-input"]
heard = checks.index[checks["as asked"] > checks["blind guess"] + 0.15]
deaf = [name for name in checks.index if name not in heard]
text = "Numbers are percents. "
if len(heard):
    text += f"Clearly above a blind guess: {', '.join(heard)}. "
if deaf:
    text += f"Not clearly above it: {', '.join(deaf)}. "
Markdown(
    text
    + f"The judge of directions is right on {100 * side_judge:.0f} % of real pictures: it can miss a direction that is there, so "
    "read its line together with that number. With so few pictures a share is uncertain by some "
    f"{100 / (4 * columns) ** 0.5:.0f} percentage points."
)

# %% [markdown]
# ## Where a phrase looks
#
# Now the maps that the next chapters need. We take a real scene, add a little noise, and run the U-Net once with the scene's own
# caption. For each token there is an attention map ({eq}`eq-pocket-attention`), averaged over heads and over the layers that the profile names for StableKeypoints,
# after the queries have been upsampled to the size of the map.
# [StableKeypoints, step by step](stable_keypoints_method.ipynb) derives this in detail; the function is the same.
#
# Which token is that of *red hair*? Not *hair*: there the pocket's text encoder says *nothing*. It is the comma that ends the
# phrase, or the *with*, or the end of the text. (For Stable Diffusion we take the last word of the phrase, since nobody taught its
# commas to speak for it.)


# %%


read = settings["stable-keypoints"].get("layers")
read = tuple(read or default_layers(pipeline.latent_size))


def part_places(text, parts):
    """The token whose map is that of a part, for each of them; None if one is not named."""
    ends = phrase_ends(token_words(text))
    found = [
        [at for at, phrase in ends.items() if phrase.endswith(part)] for part in parts
    ]
    last = int(not is_pocket)  # the sign, or the word before it
    return [at[0] - last for at in found] if all(found) else None


def part_maps(pipeline, images, texts, parts, t=200, layers=read):
    """Maps of parts, (B, parts, s, s); every caption names all of them."""
    z = pipeline.latents(images)
    generator = torch.Generator().manual_seed(seed)
    eps = torch.randn(z.shape, generator=generator).to(z.device)
    tokens = pipeline.embed(texts)  # (B, L, D)
    with torch.no_grad():
        maps = taps.attention_maps(
            pipeline, pipeline.noisy(z, t, eps), t, tokens, layers, size=64
        ).cpu()
    places = [part_places(text, parts) for text in texts]
    return torch.stack([m[at] for m, at in zip(maps, places, strict=True)])


def with_parts(scene, parts):
    """Pictures whose captions name all the parts: images, captions, indices."""
    at = [i for i, text in enumerate(texts[scene]) if part_places(text, parts)]
    at = at[: min(24, count // 2)]
    return scenes[scene].batch(at)["image"], [texts[scene][i] for i in at], at


of_parts = {
    "simple-faces": ("hair", "left eye", "right eye", "nose", "mouth"),
    "simple-birds": ("head", "beak", "eye", "wing", "tail"),
    "tinted-faces": ("hair", "left eye", "right eye", "nose", "mouth", "chin"),
    "faces-wild": ("hair", "eyes", "lips", "shirt"),
    "birds": ("crown", "wings", "tail", "beak"),
}
looked = {}
for scene, parts in of_parts.items():
    images, found_texts, _ = with_parts(scene, parts)
    looked[scene] = images[:6], part_maps(pipeline, images[:6], found_texts[:6], parts)
    places = dict(zip(parts, part_places(found_texts[0], parts), strict=True))
    print(f"{found_texts[0]}\n    tokens: {places}")

# %% mystnb={"figure": {"caption": "Attention to phrases, simple faces", "name": "fig-pocket-simple-maps"}, "image": {"alt": "Simple faces, and below them maps laid over the picture in grey for the phrases of hair, left eye, right eye, nose and mouth"}} tags=["hide-input"]
figures.token_rows(*looked["simple-faces"], of_parts["simple-faces"], marked=False)

# %% mystnb={"figure": {"caption": "Attention to phrases, simple birds", "name": "fig-pocket-simple-bird-maps"}, "image": {"alt": "Simple birds, and below them maps laid over the picture in grey for the phrases of head, beak, eye, wing and tail"}} tags=["hide-input"]
figures.token_rows(*looked["simple-birds"], of_parts["simple-birds"], marked=False)

# %% mystnb={"figure": {"caption": "Attention to phrases, tinted faces", "name": "fig-pocket-tinted-maps"}, "image": {"alt": "Tinted faces, and below them maps laid over the picture in grey for the phrases of hair, left eye, right eye, nose, mouth and chin"}} tags=["hide-input"]
figures.token_rows(*looked["tinted-faces"], of_parts["tinted-faces"], marked=False)

# %% mystnb={"figure": {"caption": "Attention to phrases, natural faces", "name": "fig-pocket-faces"}, "image": {"alt": "Faces, and below them maps laid over the picture in grey for the phrases of hair, eyes, lips and shirt"}} tags=["hide-input"]
figures.token_rows(*looked["faces-wild"], of_parts["faces-wild"], marked=False)

# %% mystnb={"figure": {"caption": "Attention to phrases, birds", "name": "fig-pocket-birds"}, "image": {"alt": "Birds, and below them maps laid over the picture in grey for the phrases of crown, wings, tail and beak"}} tags=["hide-input"]
figures.token_rows(*looked["birds"], of_parts["birds"], marked=False)

# %% [markdown]
# Are the maps where the parts are? The scenes know the exact places of their landmarks. Draw a disc round each landmark of a
# part; the discs cover a share $a$ of the picture. If the share $m$ of the phrase's attention falls into them, then $m / a$ says how
# many times more than chance. A U-Net of random weights has to get about 1, and does it? For the two eyes there is a harder
# question: is the attention to *left eye* at the left one, or just as much at the other?


# %%
def concentration(maps, points, radius=0.08):
    """m / a for maps (B, s, s) and landmarks (B, L, 2) in units of the picture's side."""
    grid = (torch.arange(64) + 0.5) / 64
    dx = grid[None, None, None, :] - points[..., 0, None, None]
    dy = grid[None, None, :, None] - points[..., 1, None, None]
    inside = ((dx**2 + dy**2).sqrt() < radius).any(1).float()  # NaN: not inside
    known = inside.flatten(1).sum(1) > 0
    m = (maps * inside).sum((1, 2)) / maps.sum((1, 2))
    return (m / inside.mean((1, 2)))[known]


def landmarks_of(scene, at, members):
    """Visible landmarks (B, L, 2) in units of the picture's side; NaN where hidden."""
    batch = scenes[scene].batch(at)
    points = batch["landmarks"][:, list(members)] / batch["image"].shape[-1]
    points[~batch["visible"][:, list(members)].bool()] = float("nan")
    return points


left, right = range(36, 42), range(42, 48)
eyes_of = {"simple-faces": ([0], [1])}  # all other faces have 68 landmarks
regions = {
    ("simple-faces", "left eye"): [0],
    ("simple-faces", "right eye"): [1],
    ("simple-faces", "nose"): [2],
    ("simple-faces", "mouth"): [3],
    ("simple-birds", "beak"): [0],
    ("simple-birds", "eye"): [1],
    ("simple-birds", "wing"): [6],
    ("simple-birds", "tail"): [7],
    ("painted-faces", "left eye"): left,
    ("painted-faces", "right eye"): right,
    ("painted-faces", "mouth"): range(48, 68),
    ("tinted-faces", "left eye"): left,
    ("tinted-faces", "right eye"): right,
    ("tinted-faces", "mouth"): range(48, 68),
    ("tinted-faces", "chin"): range(6, 11),
    ("tinted-birds", "tail"): [13],
    ("tinted-birds", "legs"): [7, 11],
    ("faces-wild", "eyes"): range(36, 48),
    ("faces-wild", "lips"): range(48, 68),
    ("birds", "crown"): [4],
    ("birds", "wings"): [8, 12],
    ("birds", "tail"): [13],
    ("birds", "beak"): [1],
}
untrained = pipeline.untrained(seed)  # the U-Net; the words are the same
rows = []
for (scene, part), members in regions.items():
    images, found_texts, at = with_parts(scene, [part])
    points = landmarks_of(scene, at, members)
    row = {"scene": scene, "part": part, "pictures": len(at)}
    for name, each in (("trained", pipeline), ("random", untrained)):
        maps = part_maps(each, images, found_texts, [part])[:, 0]
        row[name] = concentration(maps, points).mean().item()
        if part in ("left eye", "right eye") and name == "trained":
            pair = eyes_of.get(scene, (left, right))
            other = landmarks_of(scene, at, pair[part == "left eye"])
            row["at the other eye"] = concentration(maps, other).mean().item()
    rows.append(row)
attention = pd.DataFrame(rows).set_index(["scene", "part"])
attention.round(2)

# %% tags=["hide-input"]
good = attention[attention["trained"] > 1.5 * attention["random"]].index
by_scene = {
    scene: [part for place, part in good if place == scene]
    for scene in attention.index.unique(0)
}
listed = "; ".join(
    f"{scene}: {', '.join(found)}" for scene, found in by_scene.items() if found
)
eyes = attention.loc["simple-faces"].loc[["left eye", "right eye"]]
sided = eyes["trained"].mean() > 1.2 * eyes["at the other eye"].mean()
Markdown(
    (
        f"Phrases that get clearly more attention at their parts than in a U-Net of random weights, by scene: {listed}. "
        if listed
        else "No phrase gets clearly more attention at its part than in a U-Net of random weights. "
    )
    + f"The mean over all lines is {attention['trained'].mean():.1f} times chance, with random weights {attention['random'].mean():.1f} times. "
    f"The phrases of the two eyes of simple faces have {eyes['trained'].mean():.1f} times chance at their own eye and {eyes['at the other eye'].mean():.1f} times "
    f"at the other one, so left and right are {'' if sided else 'not '}told apart. The model was shown pictures and captions, and no places."
)

# %% [markdown]
# Do all sixteen cross-attentions tell parts apart? The same measure, layer by layer, for the eyes, nose and mouth of simple faces:

# %%
simple = {
    part: members
    for (scene, part), members in regions.items()
    if scene == "simple-faces"
}
images, found_texts, at = with_parts("simple-faces", list(simple))
by_layer = {}
for index in range(16):
    maps = part_maps(pipeline, images, found_texts, list(simple), layers=(index,))
    by_layer[index] = {
        part: concentration(maps[:, i], landmarks_of("simple-faces", at, members))
        .mean()
        .item()
        for i, (part, members) in enumerate(simple.items())
    }
pd.DataFrame(by_layer).T.rename_axis("layer").round(2)

# %% tags=["hide-input"]
means = pd.DataFrame(by_layer).mean()
order = means.sort_values(ascending=False)
Markdown(
    f"Layer {order.index[0]} has the most, {order.iloc[0]:.1f} times chance in the mean of the parts; then come layer {order.index[1]} with "
    f"{order.iloc[1]:.1f} and layer {order.index[2]} with {order.iloc[2]:.1f}. The next chapter reads {', '.join(map(str, read))}."
)

# %% [markdown]
# ## The same model in plain diffusers
#
# The folder that the book ships is an ordinary Stable Diffusion pipeline. Any program that reads those can read this one. Here
# is `diffusers` without `ulm`, with the same noise, the same steps and the same guidance.

# %%
folder = zoo.folder() / "pocket"
with pipelines.quiet():
    from diffusers import StableDiffusionPipeline

    plain = StableDiffusionPipeline.from_pretrained(folder)
plain.set_progress_bar_config(disable=True)
edge = pocket.latent_size
z = torch.randn(1, 4, edge, edge, generator=runs.generator(cpu, seed, 0))
caption = request.format("red")
drawn = plain(
    caption, num_inference_steps=2, guidance_scale=3.0, latents=z, output_type="np"
).images
theirs = torch.from_numpy(drawn).permute(0, 3, 1, 2)
ours = sample(pocket, [caption], 2, 3.0, seed, precision="float32")
assert torch.allclose(ours, theirs, atol=2e-3)
print(
    f"{type(plain).__name__}: the largest difference is {(ours - theirs).abs().max():.0e}"
)

# %% [markdown]
# ## Train one on your own pictures
#
# A folder of images is enough. A text file beside an image, of the same name (`cat.jpg`, `cat.txt`), holds its caption; an image
# without one is learnt under the empty caption. Words that the scenes do not have become tokens of their own, if a
# model begins from nothing. Write the parts as phrases between commas, for it is at the commas that they are heard.
#
# ```bash
# ulm fit --method pocket --data folder:IMAGES --out MODEL
# ulm fit --method pocket --data folder:IMAGES --start pocket --out MODEL
# ulm zoo train pocket
# ```
#
# The first command begins from nothing, the second goes on from the book's model, which is quicker where pictures are few, and
# the third makes the book's model again. All of them resume after a kill. What comes out is a folder for
# `backbone="MODEL"` in all chapters that follow. In Python, with six exported pictures and a few steps:

# %% tags=["nbval-ignore-output"]
with tempfile.TemporaryDirectory() as place:
    photographs, made = Path(place) / "images", Path(place) / "model"
    photographs.mkdir()
    for i in range(6):
        pixels = (scenes["cats"][i]["image"] * 255).byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(photographs / f"{i}.png")
        (photographs / f"{i}.txt").write_text(texts["cats"][i].replace("cat", "kitten"))

    own = datasets.load(f"folder:{photographs}", "all", sizes["size"])
    own = datasets.cached(own, progress=False)
    if profile == "smoke":
        student = Pocket(**{**settings["pocket"], "device": device, **tiny})
        student.fit(own, log_every=1, progress=False)
    else:
        teacher = Pocket.from_pretrained("pocket")
        rests = {"text_steps": 0, "autoencoder_steps": 0}  # those of the teacher stay
        student = Pocket(steps=8, batch_size=4, device=device, **rests)
        student.fit(own, start=teacher, log_every=1, progress=False)
    student.save_pretrained(made)
    again = diffusion.load(made)
    files = sorted(file.name for file in made.iterdir())
print(words.captions(scenes["cats"])[0].replace("cat", "kitten"))
print(", ".join(files), "| latents of", again.latent_size)
pd.DataFrame(student.history_).tail(3)

# %% [markdown]
# ## What it costs
#
# Why these sizes? What counts on a processor is arithmetic. Below are the multiply-accumulates of one picture, forward; a step of
# training takes about six floating-point operations for each of them. The lines marked *not chosen* were weighed when the
# pocket was designed.

# %%
weighed = {
    "32, 64, 128, 192; latents 32": (32, (32, 64, 128, 192)),
    "48, 96, 160, 192; latents 16": (16, (48, 96, 160, 192)),
    "64, 128, 192, 192; latents 16": (16, (64, 128, 192, 192)),
}


def line(found):
    """Counts of one model: U-Net, encoder, decoder, in G; parameters in millions."""
    made, _, unet, _ = found
    edge = made.image_size
    x = torch.empty(1, 3, edge, edge, device="meta")
    z = torch.empty(1, 4, made.latent_size, made.latent_size, device="meta")
    counted = {"U-Net": unet}
    for name, run, inputs in (("encoder", made.vae.encode, x), ("decoder", made.vae.decode, z)):  # fmt: skip
        with FlopCounterMode(display=False) as counter:
            run(inputs)
        counted[name] = counter.get_total_flops() / 2e9
    millions = [sum(p.numel() for p in net.parameters()) / 1e6 for net in made.networks.values()]  # fmt: skip
    return counted | {
        "step of 16 (GFLOP)": 6 * 16 * unet,
        "parameters (M)": sum(millions),
    }


costs = {"pocket": line(small), "Stable Diffusion 1.5": line(large)}
for name, (edge, widths) in weighed.items() if profile != "smoke" else ():
    base = diffusion.CONFIGS["pocket"]
    config = {**base, "latent_size": edge,
              "unet": {"widths": widths, "heads": 4, "groups": 16}}  # fmt: skip
    unet = anatomy(config)[2]
    costs[f"not chosen: {name}"] = {"U-Net": unet, "step of 16 (GFLOP)": 6 * 16 * unet}
pd.DataFrame(costs).T.round(2)

# %% [markdown]
# Where does the pocket's arithmetic go? Self-attention compares all places with all others, 256 with 256 on the finest
# level; with latents of 32 places a side it would be 1,024 with 1,024, and a step took two and a half times as long.

# %%
by_part = small[3]
shares = {
    kind: 100 * sum(
        sum(found.values()) for part, found in by_part.items() if part.endswith(ending)
    ) / small[2]
    for kind, ending in (("self-attention", ".attn1"), ("cross-attention", ".attn2"))
}  # fmt: skip
shares["convolutions and the rest"] = 100 - sum(shares.values())
pd.Series(shares, name="share of the U-Net's arithmetic (%)").round(0).to_frame()

# %% tags=["hide-input"]
long = runs.PROFILES["paper"]["pocket"]
pictures_seen = 0  # by the U-Net, in all runs
for name in RUNS:
    of_run = long | recipes.RECIPES[name].parameters
    other = sum(of_run.get(f"{s}_steps", 0) for s in ("text", "autoencoder", "decoder"))
    pictures_seen += (of_run["steps"] - other) * of_run["batch_size"]
operations = 6e9 * small[2] * pictures_seen
Markdown(
    f"Stable Diffusion's U-Net takes {large[2] / small[2]:.0f} times as much arithmetic a picture. The last run of the book's pocket was of "
    f"{lessons_of['steps']:,} steps of {lessons_of['batch_size']}. The profile `paper` trains with "
    f"{long['steps']:,} steps of {long['batch_size']} a run. In the U-Net alone that is {operations / 1e15:.0f} PFLOP for all three runs: "
    f"{operations / 1e14 / 60:.0f} minutes on a GPU that keeps up 100 TFLOP/s. This is arithmetic, not a measurement; "
    "networks as narrow as these will not keep a large GPU busy."
)

# %% [markdown]
# ## What the pocket is not
#
# - It is **not a small Stable Diffusion**. It has the same plan, but it has seen some twenty thousand drawn pictures, not two
#   thousand million captioned photographs. It knows faces, birds, cats, people, toys and house numbers as this book draws them.
# - It does not know photographs. To use it on photographs, train it on some (above), or take the real one.
# - Its text encoder knows a few hundred words. It gathers what stands between two commas, without the order of the words, and it knows
#   nothing of what words have to do with each other.
# - It predicts the clean latents, Stable Diffusion 1.5 the noise. Methods that read attention or features do not see the difference.
# - Its latents keep a 16th of the places of the picture, those of Stable Diffusion a 64th. Its autoencoder has the easier task. And its
#   latents were given a form, lightness and faint colours, where those of Stable Diffusion are free.
# - Errors measured with it are the pocket's on stand-ins. They say whether a method works, and what each part of it does. They
#   are not the papers' numbers.
#
# With `-p backbone stable-diffusion-v1-5/stable-diffusion-v1-5` this page draws, redraws and attends with the real one; the
# profile `paper` does so by itself.
#
# ## Where is what
#
# | On this page | In the library | Test |
# |---|---|---|
# | {eq}`eq-pocket-vae`, {eq}`eq-pocket-loss` | `ulm.methods.pocket.Pocket` | `tests/test_pocket.py` |
# | {eq}`eq-pocket-thumbnail` | `ulm.methods.pocket.thumbnail` | `tests/test_pocket.py` |
# | {eq}`eq-pocket-apart` | `ulm.diffusion.inversion` | `tests/test_diffusion.py` |
# | {eq}`eq-pocket-phrases` | `ulm.diffusion.phrases.Phrases` | `tests/test_pocket.py` |
# | {eq}`eq-pocket-noise` | `ulm.diffusion.Pipeline.noisy` | `tests/test_diffusion.py` |
# | {eq}`eq-pocket-attention` | `ulm.diffusion.attention_maps` | `tests/test_diffusion.py` |
# | {eq}`eq-pocket-guidance`, {eq}`eq-pocket-ddim` | `ulm.diffusion.sampling.sample` | `tests/test_pocket.py` |
# | captions | `ulm.diffusion.captions` | `tests/test_captions.py` |
# | the three runs | `ulm.zoo.recipes` | `tests/test_pocket.py` |
# | simple scenes | `ulm.datasets.simple` | `tests/test_simple.py` |
# | painted scenes | `ulm.datasets.painted` | `tests/test_painted.py` |
# | tinted scenes | `ulm.datasets.tinted` | `tests/test_tinted.py` |
#
# ## Exercises
#
# ```{admonition} Exercise 1
# :class: exercise
# Show that one step of DDIM with the *true* clean latents, from $t$ to any $s$, gives exactly the $\mathbf{z}_s$ of {eq}`eq-pocket-noise`. Check
# it with `noised` and `ddim_step`. What follows for a perfect network?
# ```
#
# ````{dropdown} Solution
# With $\hat{\mathbf{z}}_0 = \mathbf{z}_0$ the noise is $\hat\epsilon = \epsilon$ by {eq}`eq-pocket-apart`, and {eq}`eq-pocket-ddim` is {eq}`eq-pocket-noise` at $s$.
# ```python
# z, eps = torch.randn(2, 1, 4, 16, 16)
# t = torch.tensor([700])
# once = ddim_step(noised(z, t, eps), z, 700, 300)
# assert torch.allclose(once, noised(z, torch.tensor([300]), eps), atol=1e-4)
# ```
# If there were only one picture, a network could know its latents exactly, and one step would do. With many pictures it predicts the mean
# of all that are possible, and the mean of many pictures is fog. That is why many steps are needed.
# ````
#
# ```{admonition} Exercise 2
# :class: exercise
# A model can also *read*. Take a real face that looks left. Which caption has the smaller error, the one with *looking left* or
# the one with *looking right*? Compare the two errors at the same $t$ and with the same noise, over a few faces.
# ```
#
# ````{dropdown} Solution
# ```python
# at = [i for i, text in enumerate(texts["faces-wild"]) if "looking left" in text]
# images = scenes["faces-wild"].batch(at)["image"]
# right = [texts["faces-wild"][i] for i in at]
# wrong = [text.replace("looking left", "looking right") for text in right]
# ours, theirs = (latents_error(images, captions, 600).mean(1) for captions in (right, wrong))
# print((ours < theirs).float().mean())
# ```
# A share above one half means that the model connects the words with the direction. Averaging over several $t$ makes the answer surer.
# ````
#
# ```{admonition} Exercise 3
# :class: exercise
# Measure {numref}`fig-pocket-hair` again without guidance, `rows_of(request, hair, guidance=1.0)`. Do the colours still follow the
# caption?
# ```
#
# ````{dropdown} Solution
# `colour_check(rows_of(request, hair, guidance=1.0), hair, words.HAIRS)[0]` is usually smaller, since a prediction without
# guidance is a compromise with all that the caption does not say.
# ````
#
# ```{admonition} Exercise 4
# :class: exercise
# In `concentration`, which radius would be too small to mean anything? Look at the grids of the layers that are read, in the table of this page.
# ```
#
# ````{dropdown} Solution
# These grids have 16 cells a side in the pocket, so a cell is 1/16 = 0.06 of the picture. Below about half of that
# a disc is smaller than what the maps can resolve.
# ````
#
# ```{admonition} Exercise 5
# :class: exercise
# At how many timesteps would lightness be stronger than noise and colours weaker if $\rho$ were 1? Take the deviations `d_pocket`, and mind that
# the scaling factor would be another one.
# ```
#
# ````{dropdown} Solution
# ```python
# d = d_pocket * torch.tensor([1, 1 / colour, 1 / colour, 1])
# d = d / d.square().mean().sqrt()  # the deviation of all latents together is 1
# print(hidden_from(d[0].item()) - hidden_from(d[1:3].max().item()))
# ```
# Fewer than the text below {numref}`fig-pocket-hidden` counts, for two reasons: the colours get stronger, and lightness loses its share.
# ````
#
# ## You have seen
#
# - ✓ an autoencoder, its loss, its scaling factor, and what is lost on the way through it;
# - ✓ noise in closed form, and why faint colours are hidden early and on purpose;
# - ✓ clean latents, noise and velocity as one knowledge, and a loss beside its value for knowing nothing;
# - ✓ phrases, sixteen cross-attentions, and which of them the next papers read;
# - ✓ guidance and DDIM in ten lines, with the same pictures as the library and as plain `diffusers`;
# - ✓ a training in three runs, parts first; a model in training, and a trained one: measured whether it follows its captions, and whether its phrases look at their parts;
# - ✓ how to train one on pictures of your own.
#
# Run it again: `ulm run notebooks/pocket_pipeline -p profile paper`. Next:
# [StableKeypoints, step by step](stable_keypoints_method.ipynb).
