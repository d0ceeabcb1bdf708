"""Inter-Intra: landmarks that are consistent between subjects (Li, Liao, Miao, Lu, Luo, ICPR 2020).

As in IMM an image must be redrawn from the appearance of one view and the landmarks of another. Two ideas are added.
*Inter*: on its way from view x to view x' the image passes through the geometry of another subject x_a, so landmarks
must mean the same on both. *Cycle*: the way back, from x' to x, is walked too. No loss looks at the image in between.

    I_a = Psi(Phi_E(x), Phi_H(x_a))      equation 3
    I   = Psi(Phi_E(I_a), Phi_H(x'))     equation 4, to be x'; on the way back x and x' change places

The paper, the code that its authors put out, and good sense do not always agree. Each difference is an argument:

===============  ============  =====================  ========================  ===================================
argument         default       authors' code          paper                     reason for the default
===============  ============  =====================  ========================  ===================================
generator_width  32            32                     64 (256 channels inside)  the code; 3.6 times less arithmetic
adaptation       scratch       projection             projection                needs no core trained on labels
frozen           kernels       3x3 kernels            all that was trained      the code
decays_to        identity      zero                   not said                  no evidence, no adaptation
auxiliary        step          one order for ever     random in the batch       costs nothing, and more pairs are seen
crop             image         box of the landmarks   not said                  labels must not be looked at
optimiser        release       Adam (0, 0.9), decay,  Adam                      the code
                               clipping
vgg_input        own           raw [0, 1]             not said                  what the trunk was trained on
perceptual       vgg16-colour  ImageNet VGG-16        ImageNet VGG-16           learned without labels, ships here
precision        auto          float32                not said                  faster where bfloat16 is
===============  ============  =====================  ========================  ===================================

The paper has a baseline, which is a single ``Psi(Phi_E(x), Phi_H(x'))``, and adds the two ideas one by one (Table I):
``variant`` is ``baseline``, ``inter``, ``cycle`` or ``all``. Table III drops one of the losses: ``loss``.

The auxiliary images are the batch's own x in another order, so their landmarks are those of x in that order:
``Phi_H(x[order]) = Phi_H(x)[order]``, in training too, as batch normalisation does not see the order. Two passes of the
detector do for three; only the running statistics are updated twice instead of three times.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ulm import geometry, zoo
from ulm.datasets.base import Dataset
from ulm.datasets.cache import CachedDataset
from ulm.errors import InputError
from ulm.geometry import Warp, WarpScale
from ulm.methods import views
from ulm.methods.base import Redrawer
from ulm.methods.imm import Pair, diagnose, equivariance_loss, separation_loss
from ulm.methods.pose_core import PoseCore
from ulm.methods.training import check_choices, cosine
from ulm.networks import hourglass
from ulm.networks import perceptual as perceptual_networks
from ulm.networks.hourglass import STRIDE, Hourglass
from ulm.networks.inter_intra import Generator
from ulm.networks.perceptual import VGG
from ulm.runs import autocast, generator

# Whether the image passes through an auxiliary subject's geometry, and whether the way back is walked.
VARIANTS = {"baseline": (False, False), "inter": (True, False), "cycle": (False, True), "all": (True, True)}
OPTIMISERS: dict[str, dict[str, Any]] = {
    # Weight decay is a term of the loss, on all parameters; the norm of each network's gradient is cut off.
    "release": {"betas": (0.0, 0.9), "weight_decay": 5e-4, "clip": 1.0},
    "paper": {"betas": (0.9, 0.999), "weight_decay": 0.0, "clip": math.inf},
}
CHOICES: dict[str, tuple[str, ...]] = {
    "variant": tuple(VARIANTS),
    "loss": ("both", "reconstruction", "perceptual"),
    "vgg_input": ("own", "raw"),
    "adaptation": ("scratch", "finetune", "projection"),
    "frozen": ("kernels", "core"),
    "decays_to": hourglass.DECAYS_TO,
    "crop": ("image", "landmarks"),
    "auxiliary": ("step", "fixed"),
    "optimiser": tuple(OPTIMISERS),
    "schedule": ("staircase", "cosine"),
    "precision": ("auto", "float32", "bfloat16"),
}
# x is turned more than x' (authors' code). Sizes of scaling and shifting without a box are those of IMM's pairs.
STRONG = WarpScale(rotation=30, scale=0.1, translation=0.1)
MILD = WarpScale(rotation=15, scale=0.1, translation=0.1)
MARGIN_DEVIATION = 0.04
"""Of the random margin round annotated points, in parts of the box's mean side (4 in the authors' code)."""


class InterIntra(Redrawer):
    """Inter-Intra as a detector.

    Args:
        n_landmarks: K.
        image_size: Side of the images, a power of two; others are resized.
        width: Channels of the detector's features (256 in the paper), a multiple of 8.
        generator_width: Channels of the generator's first convolution.
        variant: ``baseline``, ``inter``, ``cycle`` or ``all`` (Table I).
        loss: ``both``, ``reconstruction`` or ``perceptual`` (Table III).
        perceptual: The perceptual network, see :func:`ulm.networks.perceptual.load`: ``timm/vgg16.tv_in1k`` and
            ``timm/vgg19.tv_in1k`` are the paper's. The default sees grey images: with ``loss="perceptual"`` colours are
            then free.
        vgg_input: ``own``: what the perceptual network was trained on; ``raw``: images in [0, 1] as they are.
        adaptation: ``scratch``; or from a detector that was trained on labelled people: ``finetune`` learns all of its
            weights anew, ``projection`` freezes its 3x3 kernels and learns matrices that mix them.
        core: That detector, a folder or zoo name of a :class:`ulm.methods.pose_core.PoseCore` of the same
            ``image_size`` and ``width``. A trained model holds all of it and can be loaded without.
        frozen: With ``projection``, ``kernels``: the 3x3 kernels only; first and 1x1 convolutions and normalisation are
            learned. ``core``: all but the projection matrices and the last layer. Running statistics follow the images
            in both.
        decays_to: With ``projection``, what weight decay pulls the matrices to: ``identity`` or ``zero``.
        beta: Factor on the score maps before the softmax (equation 1).
        sigma: Of the landmarks' maps, in cells of 4 pixels. At the paper's 0.5 equation 2 and the authors' code
            (exp(-d^2 / 0.5)) are the same.
        crop: Views for training: ``image``: turned, scaled and shifted pictures, no label is looked at. ``landmarks``:
            cut to the box round the *annotated* points as in the authors' code, which tells the method where each
            object is; give images with more around the object, and :class:`ulm.methods.views.BoxCrop` to evaluate.
        warp: Factor on the deviations of the random views.
        auxiliary: ``step``: other pairs of subjects at each step; ``fixed``: one order of the batch for all.
        equivariance: Weight of the distance between the landmarks of both views, mapped to the picture; not in the
            paper, for comparisons with IMM under one protocol; 0 is off.
        separation: Weight of a Gaussian of the distance between landmarks that keeps them apart; the same.
        optimiser: ``release``: Adam with betas (0, 0.9), weight decay 5e-4 and gradients of norm 1 at most, for
            detector and generator each; ``paper``: Adam with nothing else.
        learning_rate: Of both.
        schedule: ``staircase``: divided by 10 every ``decay_every`` steps; ``cosine``: a short warm-up, then a half
            cosine to zero.
        decay_every: 75,000 steps are the authors' 30 epochs of 2,500 steps.
        batch_size: Pairs in a step, at least 2 where an auxiliary subject is needed.
        steps: Steps of training. 82,500 are the 33 epochs whose model the authors evaluate.
        precision: ``auto`` computes convolutions in bfloat16 where the processor is fast at it.
        seed: Of initialisation, order, views and auxiliary subjects.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N``.

    Raises:
        InputError: For a value that is none of those named.
    """

    name = "inter-intra"
    saved_parts = ("pose", "generator")
    counts = ("n_landmarks", "width", "generator_width", "decay_every", "batch_size", "steps")

    def __init__(
        self,
        n_landmarks: int = 10,
        image_size: int = 128,
        width: int = 256,
        generator_width: int = 32,
        variant: str = "all",
        loss: str = "both",
        perceptual: str = "vgg16-colour",
        vgg_input: str = "own",
        adaptation: str = "scratch",
        core: str | None = None,
        frozen: str = "kernels",
        decays_to: str = "identity",
        beta: float = 10.0,
        sigma: float = 0.5,
        crop: str = "image",
        warp: float = 1.0,
        auxiliary: str = "step",
        equivariance: float = 0.0,
        separation: float = 0.0,
        optimiser: str = "release",
        learning_rate: float = 1e-3,
        schedule: str = "staircase",
        decay_every: int = 75_000,
        batch_size: int = 32,
        steps: int = 82_500,
        precision: str = "auto",
        seed: int = 0,
        device: str = "auto",
    ):
        for name in self.parameter_names():
            setattr(self, name, locals()[name])
        self._check_common()
        self._check_values()
        self.inter, self.cycle = VARIANTS[variant]
        if self.inter and batch_size < 2:
            raise InputError(
                f"found batch_size={batch_size} with variant={variant}, expected at least 2: the auxiliary subject is "
                "another image of the batch"
            )
        hourglass.n_levels(image_size)
        hourglass.check_width(width)
        self._trunk: VGG | None = None
        self._adopts, self._core_checksum = True, ""

    def _check_values(self) -> None:
        check_choices(self, CHOICES)
        for name in ("warp", "equivariance", "separation", "beta", "sigma", "learning_rate"):
            value, positive = getattr(self, name), name in ("beta", "sigma", "learning_rate")
            if not isinstance(value, (int, float)) or not math.isfinite(value) or value < 0 or (positive and not value):
                wanted = "a positive number" if positive else "a number of at least 0"
                raise InputError(f"found {name}={value!r}, expected {wanted}")

    # --- networks -------------------------------------------------------------------------------------------------

    def _build(self) -> nn.ModuleDict:
        projected = self.adaptation == "projection"
        pose = Hourglass(self.n_landmarks, self.image_size, self.width, self.beta, projected, self.decays_to)
        if projected and self.frozen == "core":
            pose.freeze()
        return nn.ModuleDict({"pose": pose, "generator": Generator(self.n_landmarks, self.generator_width)})

    def initialise(self) -> None:
        """Build the networks from ``seed``, the detector on its core unless ``adaptation`` is ``scratch``."""
        super().initialise()
        if self._adopts and self.adaptation != "scratch":
            core = self._load_core()
            self.networks["pose"].adopt(core.networks["pose"])
            self._core_checksum = core.checksum()

    def _load_core(self) -> PoseCore:
        if self.core is None:
            raise InputError(
                f"found adaptation={self.adaptation} without a core; give core=FOLDER of a detector trained for pose "
                "('ulm fit --method pose-core' makes one), or set adaptation=scratch"
            )
        return PoseCore.from_pretrained(self.core, self.device)

    def _load_weights(self, folder: Path, names: list[str]) -> None:
        # The file holds all of the core: the core itself need not be at hand.
        self._adopts = False
        try:
            super()._load_weights(folder, names)
        finally:
            self._adopts = True

    def _identity(self) -> dict[str, Any]:
        # A core is what its weights are, wherever it lies.
        return super()._identity() | ({"core": self._core_checksum} if self._core_checksum else {})

    def _landmarks(self, images: Tensor) -> Tensor:
        return geometry.to_pixels(self.networks["pose"](images), self.image_size)

    def score_maps(self, images: Tensor) -> Tensor:
        """Score maps ``beta S`` before the softmax (equation 1), ``(B, K, S / 4, S / 4)``, of images in [0, 1]."""
        self._ready()
        self.networks.eval()
        with torch.no_grad():
            return self.networks["pose"].heatmaps(self._prepare(images)).cpu()

    def _generate(self, source: Tensor, places: Tensor) -> Tensor:
        """``Psi(Phi_E(source), maps at places)``."""
        return self.networks["generator"](source, landmark_maps(places, self.image_size // STRIDE, self.sigma))

    # --- training -------------------------------------------------------------------------------------------------

    def _check_data(self, dataset: Dataset) -> CachedDataset:
        data = super()._check_data(dataset)
        if self.inter and len(data) < self.batch_size:
            raise InputError(
                f"found {len(data)} training images for batch_size={self.batch_size}: an image would be its own "
                "auxiliary subject; lower batch_size, give more images, or set variant=cycle"
            )
        if self.crop == "landmarks" and data.landmarks.isnan().any(-1).all(-1).any():
            raise InputError(
                f"{data.info.name}: found images without annotated points, by which crop=landmarks cuts them out; "
                "use crop=image, or leave these images out"
            )
        return data

    def _batch(self, data: CachedDataset, step: int) -> tuple[Tensor, Tensor | None]:
        """Images of one step; with ``crop="landmarks"`` in their own size, with their points."""
        if self.crop == "image":
            return super()._batch(data, step)
        batch = data.batch(self._indices(data, step)[0].tolist())
        points = geometry.to_normalised(batch["landmarks"], (batch["image"].shape[-2], batch["image"].shape[-1]))
        return batch["image"].to(self.torch_device), points.to(self.torch_device)

    def _optimisers(self) -> dict[str, torch.optim.Optimizer]:
        if self.loss != "reconstruction":
            trunk = perceptual_networks.load(self.perceptual, zoo.folder())
            if self.vgg_input == "raw" and trunk.preprocessing == "grey":
                raise InputError(
                    f"found vgg_input=raw with {self.perceptual}, which sees one grey channel; use vgg_input=own, or "
                    "a perceptual network on colours such as timm/vgg16.tv_in1k"
                )
            self._trunk = trunk.to(self.torch_device, memory_format=torch.channels_last)
        return {name: self._adam(self.networks[name]) for name in self.saved_parts}

    def _adam(self, network: nn.Module) -> torch.optim.Optimizer:
        settings = {key: value for key, value in OPTIMISERS[self.optimiser].items() if key != "clip"}
        learned = [parameter for parameter in network.parameters() if parameter.requires_grad]
        return torch.optim.Adam(learned, lr=self.learning_rate, **settings)

    def _train_step(self, images: Tensor, landmarks: Tensor | None, step: int) -> dict[str, Tensor]:
        """One step on ``(B, 3, H, W)`` images in [0, 1] (and their normalised landmarks, for ``crop="landmarks"``)."""
        pair = self._views(images, landmarks, generator(self.torch_device, self.seed, 3, step))
        losses = self._losses(pair, self._order(len(images), step))
        weights = {name: getattr(self, name) for name in ("equivariance", "separation")}
        self._update(sum(weights.get(name, 1.0) * loss for name, loss in losses.items()), step)
        return {name: loss.detach() for name, loss in losses.items()}

    @torch.no_grad()
    def _views(self, images: Tensor, landmarks: Tensor | None, random: torch.Generator) -> Pair:
        """Views x and x' of each image; no pixel is masked."""
        source_map, target_map = (
            self._draw_views(images, landmarks, scale.times(self.warp), random) for scale in (STRONG, MILD)
        )
        source, target = (views.sample(view, images, self.image_size) for view in (source_map, target_map))
        return Pair(source, target, torch.ones_like(target[:, :1]), source_map, target_map)

    def _draw_views(self, images: Tensor, landmarks: Tensor | None, scale: WarpScale, random: torch.Generator) -> Warp:
        if landmarks is None:
            return views.draw_windows(len(images), scale, random)
        angle = views.draw_angles(len(images), scale.rotation, random)
        deviation = torch.randn(len(images), generator=random, device=random.device)
        margin = views.TIGHT + MARGIN_DEVIATION * self.warp * deviation
        return views.landmark_windows(landmarks, angle, margin, images.shape[-1])

    def _order(self, batch: int, step: int) -> Tensor | None:
        """Which x of the batch is the auxiliary of each; None without auxiliary subjects."""
        if not self.inter:
            return None
        numbers = (self.seed, 4, step) if self.auxiliary == "step" else (self.seed, 4)
        return derangement(batch, generator(torch.device("cpu"), *numbers))

    def _losses(self, pair: Pair, order: Tensor | None) -> dict[str, Tensor]:
        """The terms of equation 7, each summed over the paths, and those that the paper does not have."""
        losses: dict[str, Tensor] = {}
        with autocast(self.torch_device, self.precision):
            ours, theirs = self._detect(pair)
            drawn = self._draw(pair, ours, theirs, order)
            if self.loss != "perceptual":
                losses["reconstruction"] = sum(reconstruction_loss(image, wanted) for image, wanted in drawn)
            if self.loss != "reconstruction":
                losses["perceptual"] = sum(self._perceptual_loss(image, wanted) for image, wanted in drawn)
        if self.equivariance:
            losses["equivariance"] = equivariance_loss(pair, ours, theirs)
        if self.separation:
            losses["separation"] = separation_loss(theirs)
        return losses

    def _detect(self, pair: Pair) -> tuple[Tensor | None, Tensor]:
        """Landmarks of x, where something asks for them, and of x'.

        Two passes, not one of both views: batch normalisation sees each view by itself, as in the authors' code.
        """
        pose = self.networks["pose"]
        return pose(pair.source) if self.inter or self.cycle or self.equivariance else None, pose(pair.target)

    def _draw(
        self, pair: Pair, ours: Tensor | None, theirs: Tensor, order: Tensor | None
    ) -> list[tuple[Tensor, Tensor]]:
        """What each path draws and what it should be."""
        # Phi_H(x_a) = Phi_H(x[order]) = Phi_H(x)[order]
        auxiliary = None if order is None else ours[order]
        drawn = [(self._path(pair.source, auxiliary, theirs), pair.target)]
        if self.cycle:
            drawn.append((self._path(pair.target, auxiliary, ours), pair.source))
        return drawn

    def _path(self, source: Tensor, auxiliary: Tensor | None, places: Tensor) -> Tensor:
        if auxiliary is not None:
            source = self._generate(source, auxiliary)  # equation 3
        return self._generate(source, places)  # equation 4

    def _perceptual_loss(self, drawn: Tensor, wanted: Tensor) -> Tensor:
        assert self._trunk is not None
        return perceptual_loss(self._trunk, drawn, wanted, raw=self.vgg_input == "raw")

    def _update(self, total: Tensor, step: int) -> None:
        for optimiser in self.optimisers.values():
            optimiser.zero_grad(set_to_none=True)
        total.backward()
        for optimiser in self.optimisers.values():
            parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
            nn.utils.clip_grad_norm_(parameters, OPTIMISERS[self.optimiser]["clip"])
            for group in optimiser.param_groups:
                group["lr"] = self.learning_rate * self._rate_factor(step)
            optimiser.step()

    def _rate_factor(self, step: int) -> float:
        return cosine(step, self.steps) if self.schedule == "cosine" else 0.1 ** (step // self.decay_every)

    def _finish(self, data: CachedDataset) -> None:
        indices = range(min(len(data), 256))
        shown: Dataset = data if self.crop == "image" else views.BoxCrop(data, self.image_size)
        problem = diagnose(self.predict(torch.stack([shown[i]["image"] for i in indices])) / shown.size)
        if problem:
            warnings.warn(f"{self!r}: {problem}", RuntimeWarning, stacklevel=3)


def derangement(n: int, random: torch.Generator) -> Tensor:
    """A random order of ``n`` things that leaves none in its place; all such orders are equally likely.

    A plain random order leaves one in its place on average, whose auxiliary subject would be itself.

    Args:
        n: At least 2.
        random: A generator on the CPU.

    Returns:
        int64 ``(n,)``.

    Raises:
        InputError: If ``n`` is less than 2: there is no such order.
    """
    if n < 2:
        raise InputError(f"found {n} image(s) to exchange between subjects, expected at least 2; give a larger batch")
    while True:  # about e = 2.7 times
        order = torch.randperm(n, generator=random)
        if (order != torch.arange(n)).all():
            return order


def landmark_maps(places: Tensor, size: int, sigma: float = 0.5) -> Tensor:
    """``Phi_H(x; k) = exp(-|u - u_k|^2 / (2 sigma^2))`` (equation 2).

    Args:
        places: Landmarks u_k, ``(B, K, 2)``, normalised.
        size: Cells n along a side.
        sigma: In cells.

    Returns:
        float32 ``(B, K, n, n)``.
    """
    return geometry.gaussian_maps(places, size, 2 * sigma / size)


def reconstruction_loss(drawn: Tensor, wanted: Tensor) -> Tensor:
    """Mean squared difference of images ``(B, 3, S, S)`` in [0, 1] (equation 5, mean instead of sum)."""
    return F.mse_loss(drawn, wanted)


def perceptual_loss(trunk: VGG, drawn: Tensor, wanted: Tensor, raw: bool = False) -> Tensor:
    """Mean squared differences of a VGG's activations at the end of four stages, added up (equation 6, mean for sum).

    Args:
        trunk: A frozen VGG-16 or VGG-19.
        drawn: ``(B, 3, S, S)`` in [0, 1].
        wanted: The same; has no gradient.
        raw: See :func:`stage_ends`.
    """
    with torch.no_grad():
        theirs = list(stage_ends(trunk, wanted, raw))
    ours = stage_ends(trunk, drawn, raw)
    return sum(F.mse_loss(a.float(), b.float()) for a, b in zip(ours, theirs, strict=True))


def stage_ends(trunk: VGG, images: Tensor, raw: bool = False) -> Iterator[Tensor]:
    """Activations relu1_2, relu2_2, relu3_3 and relu4_3 of a VGG-16; relu1_2, relu2_2, relu3_4 and relu4_4 of a VGG-19.

    The paper names the layers of VGG-16 only; those of VGG-19 are likewise the last of each stage.

    Args:
        trunk: The VGG.
        images: ``(B, 3, S, S)`` in [0, 1].
        raw: Whether the images are fed as they are, without what the trunk subtracts and divides by.
    """
    x = images if raw else trunk.preprocess(images)
    for stage, blocks in enumerate(trunk.stages[:4]):
        if stage:
            x = F.max_pool2d(x, 2, ceil_mode=True)
        for block in blocks:
            x = block(x)
        yield x
