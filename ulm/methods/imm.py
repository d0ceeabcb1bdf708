"""IMM: landmarks by conditional image generation (Jakab, Gupta, Bilen, Vedaldi, NeurIPS 2018).

A target x' must be redrawn from a source x of the same object and from K points found in x'. Because the points are all
that is known of the target's geometry, they come to rest on the parts of the object. The chapter 'IMM, step by step'
derives every function here.

Where the paper and its authors' code differ, ``convention`` decides; ``release`` is the default because the published
numbers came from code like it. Each setting may be given by itself as well (None: as the convention says):

=================  ===============================  =================================
setting            ``release`` (authors' code)      ``paper`` (text)
=================  ===============================  =================================
``softmax``        logits averaged over the axis    logits summed over the axis
``halved``         Gaussian exp(-d^2 / s^2)         exp(-d^2 / (2 s^2))
``composed``       source = warp of the target      both warp the original
``mask``           ``border``: borders count less   ``outside``: only what left the image
``learning_rate``  1e-3                             1e-2
``schedule``       x 0.95 every 100,000 steps       / 10 when the error stalls
``weight_decay``   1e-5, kernels only               5e-4, kernels only
``clip``           ``tensor``: each norm <= 1       ``global``: norm of all <= 1
=================  ===============================  =================================
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ulm import geometry, zoo
from ulm.datasets.cache import CachedDataset
from ulm.errors import InputError
from ulm.geometry import Warp
from ulm.methods.base import Redrawer
from ulm.methods.training import cosine
from ulm.networks import imm as networks
from ulm.networks import perceptual as perceptual_networks
from ulm.runs import autocast, generator

CONVENTIONS: dict[str, dict[str, Any]] = {
    "release": {
        "softmax": "mean",
        "halved": False,
        "composed": True,
        "mask": "border",
        "learning_rate": 1e-3,
        "schedule": "staircase",
        "weight_decay": 1e-5,
        "clip": "tensor",
    },
    "paper": {
        "softmax": "sum",
        "halved": True,
        "composed": False,
        "mask": "outside",
        "learning_rate": 1e-2,
        "schedule": "plateau",
        "weight_decay": 5e-4,
        "clip": "global",
    },
}
# pix2pix weighs the pixel loss 100 times the adversarial one.
ADVERSARIAL_RATIO = 100
LOSSES = ("content", "l1", "l2", "adv+l1", "adv+l2")
CHOICES: dict[str, tuple[Any, ...]] = {
    "convention": tuple(CONVENTIONS),
    "loss": LOSSES,
    "bottleneck": ("heatmap", "fc"),
    "pairs": ("warps", "video"),
    "warps": tuple(geometry.WARPS),
    "softmax": (None, "mean", "sum", "joint"),
    "mask": (None, "border", "outside"),
    "schedule": (None, "staircase", "plateau", "cosine"),
    "clip": (None, "tensor", "global"),
    "initialisation": ("normal", "kaiming"),
    "precision": ("auto", "float32", "bfloat16"),
}


class IMM(Redrawer):
    """IMM as a detector.

    Args:
        n_landmarks: K. With ``bottleneck="fc"`` the code has ``d = 2 K`` numbers.
        image_size: Side of the images, a power of two; others are resized.
        width: Channels of the first convolution (32 in the paper).
        convention: ``release`` or ``paper``, see the module's table.
        bottleneck: ``heatmap``, or ``fc`` for the ablation of Table 2 (left), whose ``predict`` returns the code as
            K pairs of numbers that are no places.
        loss: ``content`` (perceptual), ``l1``, ``l2``, ``adv+l1`` or ``adv+l2`` (Table 2, right).
        perceptual: The perceptual network of ``content``, see :func:`ulm.networks.perceptual.load`.
        pairs: ``warps``: two random warps of one image; ``video``: two frames of one video.
        equivariance: Weight of the distance between the source's landmarks, mapped by the known warp, and the target's.
            Not in the paper's experiments, which name it as an orthogonal cue; 0 is off. Between two frames no warp is
            known: with ``pairs="video"`` this term and the next look at two warps of the target frame.
        concentration: Weight of the cross-entropy between the score maps and a Gaussian at the place where the other
            view's landmark maps to; it sharpens the maps. 0 is off.
        separation: Weight of a Gaussian of the distance between landmarks that keeps them apart; 0 is off.
        jitter: Strength of colour changes on what the detector sees, not on what is to be drawn; 0 is off.
        warps: ``release``, as the authors' code draws them, or ``local``, which bend everywhere.
        warp: Factor on the deviations of the random warps.
        sigma: Of the Gaussian maps, in [-1, 1] units.
        gain: Factor on the score maps before the softmax.
        initialisation: ``normal`` (deviation 0.01, as published) or ``kaiming``.
        softmax, halved, composed, mask, learning_rate, schedule, weight_decay, clip: see the module's table; there is
            one more schedule, ``cosine``: a short warm-up, then a half cosine to zero.
        reconstruct_every: Draw the target at every step (1, as published) or, with the other terms on, at every n-th:
            the generator costs most of a step.
        batch_size: Pairs in a step.
        steps: Steps of training.
        precision: ``auto`` computes convolutions in bfloat16 where the processor is fast at it.
        seed: Of initialisation, order and warps.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N``.

    Raises:
        InputError: For a value that is none of those named.
    """

    name = "imm"
    saved_parts = ("pose", "generator", "decoder")

    def __init__(
        self,
        n_landmarks: int = 10,
        image_size: int = 128,
        width: int = 32,
        convention: str = "release",
        bottleneck: str = "heatmap",
        loss: str = "content",
        perceptual: str = "vgg16-colour",
        pairs: str = "warps",
        equivariance: float = 0.0,
        concentration: float = 0.0,
        separation: float = 0.0,
        jitter: float = 0.0,
        warps: str = "release",
        warp: float = 1.0,
        sigma: float = 0.1,
        gain: float = 1.0,
        initialisation: str = "normal",
        softmax: str | None = None,
        halved: bool | None = None,
        composed: bool | None = None,
        mask: str | None = None,
        learning_rate: float | None = None,
        schedule: str | None = None,
        weight_decay: float | None = None,
        clip: str | None = None,
        reconstruct_every: int = 1,
        batch_size: int = 50,
        steps: int = 500_000,
        precision: str = "auto",
        seed: int = 0,
        device: str = "auto",
    ):
        for name in self.parameter_names():
            setattr(self, name, locals()[name])
        self._check_common()
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                known = ", ".join(str(choice) for choice in choices if choice is not None)
                raise InputError(f"found {name}={getattr(self, name)!r}, expected one of {known}")
        for name in ("equivariance", "concentration", "separation", "jitter", "warp", "sigma", "gain"):
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or not math.isfinite(value) or value < 0:
                raise InputError(f"found {name}={value!r}, expected a number of at least 0")
        if learning_rate is not None and not learning_rate > 0:
            raise InputError(f"found learning_rate={learning_rate!r}, expected a positive number")
        if concentration and not self.setting("composed"):
            raise InputError("concentration compares in the target's frame; it needs composed=True")
        if bottleneck == "fc" and concentration:
            raise InputError("concentration needs score maps, which bottleneck=fc has not; set it to 0")
        if reconstruct_every < 1:
            raise InputError(f"found reconstruct_every={reconstruct_every}, expected at least 1")
        networks.n_blocks(image_size)

    def setting(self, name: str) -> Any:
        """The value of one of the convention's settings that is in force."""
        value = getattr(self, name)
        return CONVENTIONS[self.convention][name] if value is None else value

    # --- networks -------------------------------------------------------------------------------------------------

    def _build(self) -> nn.ModuleDict:
        shape = {"image_size": self.image_size, "width": self.width}
        parts: dict[str, nn.Module] = {}
        if self.bottleneck == "fc":
            channels = 8
            parts["pose"] = networks.VectorEncoder(2 * self.n_landmarks, **shape)
            parts["decoder"] = networks.VectorDecoder(2 * self.n_landmarks, channels)
        else:
            channels = self.n_landmarks
            parts["pose"] = networks.PoseEncoder(channels, **shape, softmax=self.setting("softmax"), gain=self.gain)
        parts["generator"] = networks.Generator(channels, **shape)
        if self.loss.startswith("adv"):
            parts["discriminator"] = networks.Discriminator(self.width)
        built = nn.ModuleDict(parts)
        networks.initialise(built, self.initialisation)
        built["plateau"] = Plateau()
        return built

    def _landmarks(self, images: Tensor) -> Tensor:
        # (u + 1) / 2 * size, as the authors' evaluation does.
        return geometry.to_pixels(self.networks["pose"](images), self.image_size)

    def score_maps(self, images: Tensor) -> Tensor:
        """Score maps ``S_u(x; k)`` before the softmax (Figure 2), ``(B, K, 16, 16)``, of images in [0, 1]."""
        self._ready()
        with torch.no_grad():
            return self.networks["pose"].heatmaps(self._prepare(images)).cpu()

    def _generate(self, source: Tensor, code: Tensor) -> Tensor:
        if self.bottleneck == "fc":
            return self.networks["generator"](source, self.networks["decoder"](code))
        maps = geometry.gaussian_maps(
            code, networks.MAP_SIZE, self.sigma, halved=self.setting("halved"), align_corners=True
        )
        return self.networks["generator"](source, maps)

    # --- training -------------------------------------------------------------------------------------------------

    def _needs_pairs(self) -> bool:
        return self.pairs == "video"

    def _optimisers(self) -> dict[str, torch.optim.Optimizer]:
        if self.loss == "content":
            vgg = perceptual_networks.load(self.perceptual, zoo.folder())
            vgg.to(self.torch_device, memory_format=torch.channels_last)
            published = vgg.width == 64 and self.convention == "release"
            content = perceptual_networks.ContentLoss(vgg, release_weights=published)
            self.networks["content"] = content.to(self.torch_device)
        found = {"model": self._adam([self.networks[name] for name in self.saved_parts if name in self.networks])}
        if "discriminator" in self.networks:
            found["discriminator"] = self._adam([self.networks["discriminator"]])
        return found

    def _adam(self, parts: list[nn.Module]) -> torch.optim.Optimizer:
        parameters = [parameter for part in parts for parameter in part.parameters()]
        # Weight decay as a term of the loss, on kernels only (TensorFlow's regulariser), hence Adam and not AdamW.
        groups = [
            {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": self.setting("weight_decay")},
            {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
        ]
        return torch.optim.Adam(groups, lr=self.setting("learning_rate"))

    def _train_step(self, images: Tensor, partners: Tensor | None, step: int) -> dict[str, Tensor]:
        """One step on ``(B, 3, S, S)`` images in [0, 1] (and their partners from the same videos)."""
        random = generator(self.torch_device, self.seed, 3, step)
        with torch.no_grad():
            pair = warped_pair(self, images, random) if partners is None else video_pair(images, partners, random)
            seen = jitter_colours(pair.target, self.jitter, random)
            known, warped = self._known_warp(pair, random) if self.equivariance or self.concentration else (pair, [])
        losses: dict[str, Tensor] = {}
        drawn = None
        with autocast(self.torch_device, self.precision):
            # u* of the target; of the views too between which a known warp is to be respected.
            views = torch.cat([seen, *warped]) if warped else seen
            maps = self.networks["pose"].heatmaps(views) if self.bottleneck == "heatmap" else None
            codes = self._locate(maps) if maps is not None else self.networks["pose"](views)
            code = codes[: len(images)]
            if step % self.reconstruct_every == 0:
                drawn = self._generate(pair.source, code)
                losses["reconstruction"] = self._reconstruction(drawn, pair)
                if "discriminator" in self.networks:
                    judge = self.networks["discriminator"]
                    losses["adversarial"] = adversarial_loss(judge, pair.source, drawn) / ADVERSARIAL_RATIO
        if self.equivariance:
            *_, target, source = codes.split(len(images))
            losses["equivariance"] = equivariance_loss(known, source, target)
        if self.concentration:
            losses["concentration"] = concentration_loss(
                known, codes.split(len(images))[-1], maps.split(len(images))[-2]
            )
        if self.separation:
            losses["separation"] = separation_loss(code)
        weights = {name: getattr(self, name) for name in ("equivariance", "concentration", "separation")}
        # The factor of the authors' code; it makes the clipping below bite at every step.
        total = 1000 * sum(weights.get(name, 1.0) * loss for name, loss in losses.items())
        self._update("model", total, step)
        if "discriminator" in self.networks and drawn is not None:
            with autocast(self.torch_device, self.precision):
                judged = discriminator_loss(self.networks["discriminator"], pair, drawn.detach())
            self._update("discriminator", judged, step)
            losses["discriminator"] = judged
        return {name: loss.detach() for name, loss in losses.items()}

    def _known_warp(self, pair: Pair, random: torch.Generator) -> tuple[Pair, list[Tensor]]:
        """A pair whose warp is known, and those of its pictures that the detector has not seen yet, the source last."""
        if pair.source_map is not None:
            return pair, [jitter_colours(pair.source, self.jitter, random)]
        known = warped_pair(self, pair.target, random)
        return known, [jitter_colours(view, self.jitter, random) for view in (known.target, known.source)]

    def _locate(self, maps: Tensor) -> Tensor:
        return geometry.soft_argmax(maps, self.setting("softmax"), align_corners=True)

    def _reconstruction(self, drawn: Tensor, pair: Pair) -> Tensor:
        if self.loss == "content":
            return self.networks["content"](drawn, pair.target, pair.mask)
        difference = drawn - pair.target
        if self.loss.endswith("l1"):
            return (pair.mask * difference.abs()).mean()
        # The authors' l2 on [0, 255]: 1000 mean(d^2) / 255, and d is 255 times larger there.
        return 255 * (pair.mask * difference.square()).mean()

    def _update(self, name: str, loss: Tensor, step: int) -> None:
        optimiser = self.optimisers[name]
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        parameters = [p for group in optimiser.param_groups for p in group["params"] if p.grad is not None]
        if self.setting("clip") == "global":
            nn.utils.clip_grad_norm_(parameters, 1.0)
        else:
            for parameter in parameters:
                nn.utils.clip_grad_norm_(parameter, 1.0)
        rate = self.setting("learning_rate") * self._rate_factor(step, loss.detach())
        for group in optimiser.param_groups:
            group["lr"] = rate
        optimiser.step()

    def _rate_factor(self, step: int, loss: Tensor) -> float:
        schedule = self.setting("schedule")
        if schedule == "staircase":
            return 0.95 ** (step // 100_000)
        if schedule == "plateau":
            return self.networks["plateau"](loss)
        return cosine(step, self.steps)

    def _finish(self, data: CachedDataset) -> None:
        indices = torch.arange(min(len(data), 256))
        problem = diagnose(self.predict(data.images_uint8(indices)) / self.image_size)
        if problem and self.bottleneck == "heatmap":
            warnings.warn(f"{self!r}: {problem}", RuntimeWarning, stacklevel=3)


class Plateau(nn.Module):
    """Divides the learning rate by 10 once the running error has not fallen for ``patience`` steps."""

    def __init__(self, patience: int = 20_000):
        super().__init__()
        self.patience = patience
        for name, value in {"mean": float("nan"), "best": float("inf"), "waited": 0.0, "factor": 1.0}.items():
            self.register_buffer(name, torch.tensor(value))

    def forward(self, loss: Tensor) -> float:
        """The factor on the learning rate after one more ``loss``."""
        self.mean = torch.where(self.mean.isnan(), loss, self.mean + 0.001 * (loss - self.mean)).float()
        better = self.mean < 0.999 * self.best
        self.best = torch.where(better, self.mean, self.best)
        self.waited = torch.where(better, 0.0, self.waited + 1)
        if self.waited >= self.patience:
            self.factor, self.waited = self.factor / 10, torch.zeros_like(self.waited)
        return float(self.factor)


# --- pairs --------------------------------------------------------------------------------------------------------


@dataclass
class Pair:
    """Source x and target x', ``(B, 3, S, S)`` in [0, 1], and how their coordinates meet.

    Attributes:
        source: x, which gives the appearance.
        target: x', which gives the geometry and is to be drawn.
        mask: ``(B, 1, S, S)`` in [0, 1], weight of the target's pixels.
        source_map: Takes points of the source to the frame of the comparison.
        target_map: Takes points of the target there; None is the identity.
    """

    source: Tensor
    target: Tensor
    mask: Tensor
    source_map: Warp | None = None
    target_map: Warp | None = None


def warped_pair(model: IMM, images: Tensor, random: torch.Generator) -> Pair:
    """Two random thin-plate-spline warps of ``(B, 3, S, S)`` images.

    ``composed`` (authors' code): x' = g2 x0 and x = g1 x'. Otherwise (paper, section 4.2): x = g1 x0 and x' = g2 x0.
    """
    size, batch = images.shape[-1], len(images)
    for_source, for_target = (scale.times(model.warp) for scale in geometry.WARPS[model.warps])
    g2 = geometry.draw_warps(batch, for_target, random)
    g1 = geometry.draw_warps(batch, for_source, random)
    if model.setting("mask") == "border":
        weight = geometry.border_mask(size).to(images)
    else:
        weight = torch.ones(1, 1, size, size).to(images)
    # The mask is a fourth channel that is warped with the image.
    warped = g2.sample(torch.cat([images, weight.expand(batch, -1, -1, -1)], dim=1), align_corners=True)
    target, mask = warped[:, :3], warped[:, 3:]
    if model.setting("composed"):
        return Pair(g1.sample(target, align_corners=True), target, mask, source_map=g1)
    return Pair(g1.sample(images, align_corners=True), target, mask, source_map=g1, target_map=g2)


def video_pair(images: Tensor, partners: Tensor, random: torch.Generator) -> Pair:
    """Two frames of one video; with probability 1/2 each, both are flipped and the two change places."""
    flip, swap = (torch.rand(2, len(images), 1, 1, 1, generator=random, device=random.device) < 0.5).unbind()
    images, partners = (torch.where(flip, x.flip(-1), x) for x in (images, partners))
    source, target = torch.where(swap, partners, images), torch.where(swap, images, partners)
    return Pair(source, target, torch.ones_like(target[:, :1]))


def jitter_colours(images: Tensor, strength: float, random: torch.Generator) -> Tensor:
    """Random contrast, brightness and colour cast of each image; ``strength`` is their standard deviation."""
    if not strength:
        return images
    shape = (len(images), 3, 1, 1)
    cast = torch.randn(shape, generator=random, device=images.device)
    common = torch.randn(2, len(images), 1, 1, 1, generator=random, device=images.device)
    mean = images.mean((1, 2, 3), keepdim=True)
    contrast, brightness = (strength * common[0]).exp(), 0.5 * strength * common[1]
    return ((images - mean) * contrast + mean + brightness) * (0.5 * strength * cast).exp()


# --- losses -------------------------------------------------------------------------------------------------------


def common_frame(pair: Pair, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """The source's points and the target's ``(B, K, 2)``, each mapped to the frame in which they should agree."""
    assert pair.source_map is not None
    return pair.source_map(source), target if pair.target_map is None else pair.target_map(target)


def equivariance_loss(pair: Pair, source: Tensor, target: Tensor) -> Tensor:
    """Mean distance of the source's landmarks and the target's ``(B, K, 2)``, mapped to a common frame.

    The distance, not its square: once landmarks roughly follow the object, the square has hardly a gradient left.
    """
    ours, theirs = common_frame(pair, source, target)
    return ((ours - theirs).square().sum(-1) + 1e-6).sqrt().mean()


def concentration_loss(pair: Pair, source: Tensor, maps: Tensor, sigma: float = 0.15) -> Tensor:
    """Cross-entropy of the target's score maps with a Gaussian where the source's landmarks map to.

    ``- sum_u q_u log p_u`` with q a normalised Gaussian (no gradient) and p the softmax of the maps over all cells.
    Landmarks that map outside the image do not count. Needs composed warps, whose common frame is the target's.

    Args:
        pair: A pair whose ``target_map`` is the identity.
        source: The source's landmarks ``(B, K, 2)``.
        maps: The target's score maps ``(B, K, 16, 16)``.
        sigma: Of the Gaussian, in [-1, 1] units.
    """
    places, _ = common_frame(pair, source.detach(), source.detach())
    inside = (places.abs() <= 1).all(-1)
    wanted = geometry.gaussian_maps(places, networks.MAP_SIZE, sigma, align_corners=True).flatten(2)
    wanted = wanted / wanted.sum(-1, keepdim=True).clamp_min(1e-6)
    entropy = -(wanted * maps.flatten(2).log_softmax(-1)).sum(-1)
    return (entropy * inside).mean()


def separation_loss(landmarks: Tensor, sigma: float = 0.1) -> Tensor:
    """``sum_{k != l} exp(-|u_k - u_l|^2 / (2 sigma^2)) / K``, mean over the batch: near 0 for points well apart.

    Args:
        landmarks: ``(B, K, 2)`` normalised.
        sigma: In normalised units.
    """
    k = landmarks.shape[1]
    squared = (landmarks.unsqueeze(2) - landmarks.unsqueeze(1)).square().sum(-1)
    near = (-squared / (2 * sigma**2)).exp() * (1 - torch.eye(k, device=landmarks.device))
    return near.sum((1, 2)).mean() / k


def adversarial_loss(discriminator: nn.Module, source: Tensor, drawn: Tensor) -> Tensor:
    """The generator's side of a conditional patch GAN (pix2pix): its drawings are to be taken for real."""
    scores = discriminator(torch.cat([source, drawn], 1)).float()
    return F.binary_cross_entropy_with_logits(scores, torch.ones_like(scores))


def discriminator_loss(discriminator: nn.Module, pair: Pair, drawn: Tensor) -> Tensor:
    """The discriminator's side: targets are real, drawings are not."""
    real = discriminator(torch.cat([pair.source, pair.target], 1)).float()
    fake = discriminator(torch.cat([pair.source, drawn], 1)).float()
    wanted = (torch.ones_like(real), torch.zeros_like(fake))
    return sum(F.binary_cross_entropy_with_logits(x, y) for x, y in zip((real, fake), wanted, strict=True)) / 2


# --- what went wrong ----------------------------------------------------------------------------------------------


def diagnose(landmarks: Tensor, together: float = 0.02, still: float = 0.005) -> str:
    """Words for the two common failures, or nothing.

    Args:
        landmarks: ``(N, K, 2)`` in fractions of the image's side.
        together: Mean distance to the nearest other landmark under which landmarks count as collapsed.
        still: Standard deviation over images under which a landmark counts as frozen.

    Returns:
        A sentence on landmarks that have collapsed onto each other or do not follow the images; empty if all is well.
    """
    n, k, _ = landmarks.shape
    problems = []
    if k > 1:
        distances = torch.cdist(landmarks, landmarks) + torch.eye(k) * 1e9
        if distances.amin(-1).mean() < together:
            problems.append("landmarks have collapsed onto each other (raise separation, or train longer)")
    if n > 1:
        frozen = int((landmarks.std(0).norm(dim=-1) < still).sum())
        if frozen > k / 2:
            problems.append(
                f"{frozen} of {k} landmarks hardly move from image to image (train longer, raise equivariance)"
            )
    return "; ".join(problems)
