"""StableKeypoints: landmarks from a pretrained diffusion model (Hedlin et al., CVPR 2024).

The cross-attention of a text-to-image model says, for each word, where in the image it applies. So N token embeddings
are put in the place of a text and optimised, the model itself frozen, until each responds in one small spot (a Gaussian
at its own maximum) and moves with the image. K tokens that are sharp and far apart are the landmarks; their maxima,
averaged over random views of an image, are the places. The chapter 'StableKeypoints, step by step'
derives every function here.

Where the paper and its authors' code differ, ``convention`` decides; ``release`` is the default because the published
numbers came from code like it. Each setting may be given by itself as well (None: as the convention says):

================  =========================================  ==========================================
setting           ``release`` (authors' code)                ``paper`` (text)
================  =========================================  ==========================================
``losses_on``     ``furthest``: K tokens, furthest points    ``local``: all kappa tokens
                  among the kappa most local ones
``locality``      ``softmax``: KL to the softmax over        ``sum``: KL to the map divided by its sum,
                  pixels of the map, target + 1e-5           as equation 9 reads
``reduction``     ``mean`` of squares over pixels            ``sum`` over pixels, the squared norms
``localisation``  100                                        1
``equivariance``  1000                                       10
``timestep``      0, the last of 50 DDIM steps               1
``translation``   0.25 of half the side                      0.5 of half the side (0.25 W)
``zoom``          1 to 1.25                                  1 to 1.2
``coverage``      views are averaged where they overlap      views are summed
================  =========================================  ==========================================

With Adam, which ignores the scale of a loss, ``reduction`` and a common factor of both weights hardly matter.
Neither text nor code fixes the random numbers; here they depend on ``seed``, the step or the view alone, so that a run
can be resumed and a prediction repeated, and does not depend on which images are predicted together.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ulm import geometry
from ulm.datasets.base import Dataset
from ulm.datasets.cache import CachedDataset
from ulm.errors import InputError
from ulm.methods.backbone import OnDiffusion, fingerprint, same_backbone
from ulm.methods.training import Trainable, check_choices, read_safetensors
from ulm.runs import generator

if TYPE_CHECKING:
    from ulm.diffusion.pipelines import Pipeline

CONVENTIONS: dict[str, dict[str, Any]] = {
    "release": {
        "losses_on": "furthest",
        "locality": "softmax",
        "reduction": "mean",
        "localisation": 100.0,
        "equivariance": 1000.0,
        "timestep": 0,
        "translation": 0.25,
        "zoom": 1.25,
        "coverage": True,
    },
    "paper": {
        "losses_on": "local",
        "locality": "sum",
        "reduction": "sum",
        "localisation": 1.0,
        "equivariance": 10.0,
        "timestep": 1,
        "translation": 0.5,
        "zoom": 1.2,
        "coverage": False,
    },
}
CHOICES: dict[str, tuple[Any, ...]] = {
    "convention": tuple(CONVENTIONS),
    "losses_on": (None, "furthest", "local"),
    "locality": (None, "softmax", "sum"),
    "reduction": (None, "mean", "sum"),
    "upsampling": ("query", "map"),
    "precision": ("auto", "float32", "bfloat16"),
    "cache": ("disk", "memory"),
}
# How much coarser than the latents each of the sixteen cross-attentions works.
STRIDES = (1, 1, 2, 2, 4, 4, 8, 4, 4, 4, 2, 2, 2, 1, 1, 1)
# The first cross-attention after the middle, and the side of the grid that equation 3 takes its maps from.
WAY_UP, GRID = 7, 16
# Share of the old counts that a step of training keeps in the running choice of tokens.
MEMORY = 0.99
CPU = torch.device("cpu")


class StableKeypoints(OnDiffusion):
    """StableKeypoints as a detector. Only the tokens are learned and saved; the diffusion model is named.

    While training, the K tokens are those that furthest points took most often of late; at the end they are chosen as
    :meth:`choose` says. ``untrained()`` has random tokens (the paper's Figure 1), of which the first K are taken until
    :meth:`choose` picks K as it does for learned ones.

    Args:
        n_landmarks: K.
        image_size: Side of the images and of the maps whose maxima are the landmarks (512 as published). The diffusion
            model resizes images to its own size.
        backbone: A name for :func:`ulm.diffusion.pipelines.load`: ``pocket``, a folder or a hub id.
        n_tokens: N, tokens that compete for every pixel.
        kappa: The losses and the choice look at this many most local tokens of an image.
        map_size: Side of the attention maps that the losses see.
        sigma: Of the Gaussian, in pixels of such a map.
        convention: ``release`` or ``paper``, see the module's table.
        losses_on, locality, reduction, localisation, equivariance, timestep, translation, zoom, coverage: See the
            module's table. ``equivariance=0`` (Table 4) trains without the second view, at half the cost.
        rotation: Largest angle of the random views, in degrees.
        layers: Cross-attentions whose maps are averaged, by order of execution; None: see :func:`default_layers`,
            7 to 10 for Stable Diffusion 1.5.
        upsampling: ``query``, or ``map`` for the ablation of Table 4: the maps themselves are enlarged.
        views: Random views that a prediction averages; 0: the image itself (Table 4, no test-time ensembling).
        radius: 0: landmarks are the maxima; else centres of mass within so many pixels of them, an option of the
            authors' code, which uses 5 at 512 pixels.
        selection_images: Training images on which the K tokens are chosen.
        learning_rate: Of Adam.
        batch_size: Images in a step (release: 4; the paper's 10,000 steps fit its hours with 1).
        micro_batch: Images that are in the network at once, each with its view; the rest of a batch waits.
        steps: Steps of training.
        precision: ``auto`` runs the diffusion model in bfloat16 where the device is fast at it; maps and losses are
            float32.
        cache: Where the latents of training images are kept, ``disk`` (in ``$ULM_CACHE``) or ``memory``.
        seed: Of initialisation, order, views and noise.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N``.

    Raises:
        InputError: For a value that is none of those named, K above kappa, or N below kappa.
    """

    name = "stable-keypoints"
    detector_parts = ("tokens",)
    saved_parts = ("tokens",)
    prediction = ("views", "radius", "coverage", "micro_batch")
    learned = "tokens"
    counts = (
        "n_landmarks", "image_size", "n_tokens", "kappa", "map_size", "selection_images", "batch_size", "micro_batch",
        "steps",
    )  # fmt: skip

    def __init__(
        self,
        n_landmarks: int = 10,
        image_size: int = 512,
        backbone: str = "pocket",
        n_tokens: int = 500,
        kappa: int = 25,
        map_size: int = 128,
        sigma: float = 2.0,
        convention: str = "release",
        losses_on: str | None = None,
        locality: str | None = None,
        reduction: str | None = None,
        localisation: float | None = None,
        equivariance: float | None = None,
        timestep: int | None = None,
        rotation: float = 15.0,
        translation: float | None = None,
        zoom: float | None = None,
        coverage: bool | None = None,
        layers: Sequence[int] | None = None,
        upsampling: str = "query",
        views: int = 10,
        radius: float = 0.0,
        selection_images: int = 100,
        learning_rate: float = 5e-3,
        batch_size: int = 4,
        micro_batch: int = 1,
        steps: int = 500,
        precision: str = "auto",
        cache: str = "disk",
        seed: int = 0,
        device: str = "auto",
    ):
        for name in self.parameter_names():
            setattr(self, name, locals()[name])
        self.layers = None if layers is None else [int(layer) for layer in layers]
        self._check_common()
        check_choices(self, CHOICES)
        self._check_counts()
        lowest = {"sigma": 1e-3, "learning_rate": 1e-12, "zoom": 1, "localisation": 0, "equivariance": 0}
        for name in (*lowest, "timestep", "translation", "rotation", "radius", "views"):
            value, least = self.setting(name), lowest.get(name, 0)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value < math.inf:
                raise InputError(f"found {name}={value!r}, expected a number of at least {least}")

    def _check_counts(self) -> None:
        k, kappa, n = self.n_landmarks, self.kappa, self.n_tokens
        if n < k:
            raise InputError(f"found n_tokens={n} for n_landmarks={k}; each landmark is a token: raise n_tokens")
        if k > kappa:
            raise InputError(f"found n_landmarks={k}, kappa={kappa}; landmarks are chosen among kappa: raise kappa")
        if n < kappa:
            raise InputError(f"found n_tokens={n}, kappa={kappa}; kappa tokens are picked from all: raise n_tokens")
        if self.layers is not None and (not self.layers or not set(self.layers) <= set(range(len(STRIDES)))):
            raise InputError(f"found layers={self.layers}, expected some of 0 to {len(STRIDES) - 1}")
        for name in ("views", "timestep"):
            if not isinstance(self.setting(name), int):
                raise InputError(f"found {name}={self.setting(name)!r}, expected a whole number of at least 0")

    def setting(self, name: str) -> Any:
        """The value in force of a hyperparameter that may be left to the convention."""
        value = getattr(self, name)
        return CONVENTIONS[self.convention].get(name) if value is None else value

    @property
    def used_layers(self) -> tuple[int, ...]:
        """The cross-attentions whose maps are averaged; loads the diffusion model if the default is asked for."""
        return tuple(self.layers) if self.layers else default_layers(self.pipeline.latent_size)

    # --- the diffusion model --------------------------------------------------------------------------------------

    def _check_fit(self, pipeline: Pipeline) -> None:
        length = self.networks["tokens"].embedding.shape[1]
        if length != pipeline.token_dim:
            raise InputError(
                f"found tokens of {length} numbers, but {pipeline.name} takes {pipeline.token_dim}; "
                "load the model with the backbone that it was trained with"
            )

    def _trained_with(self) -> Tensor:
        return self.networks["tokens"].backbone

    def _build(self) -> nn.ModuleDict:
        pipeline = self.pipeline
        tokens = Tokens(self.n_tokens, pipeline.token_dim, self.n_landmarks, fingerprint(pipeline))
        return nn.ModuleDict({"tokens": tokens})

    def _load_weights(self, folder: Path, names: list[str]) -> None:
        # The diffusion model is left until it is needed: the file says what shapes the tokens have.
        tensors, _ = read_safetensors(folder / "model.safetensors")
        try:
            length = tensors["tokens.embedding"].shape[1]
            tokens = Tokens(self.n_tokens, length, self.n_landmarks, tensors["tokens.backbone"])
            tokens.load_state_dict({name.removeprefix("tokens."): tensor for name, tensor in tensors.items()})
        except (KeyError, IndexError, RuntimeError) as error:
            raise InputError(f"{folder}: weights and config.json do not fit together; make the model again") from error
        self.networks = nn.ModuleDict({"tokens": tokens}).to(self.torch_device).eval()

    # --- maps -----------------------------------------------------------------------------------------------------

    def maps(self, latents: Tensor, noise: Tensor, tokens: Tensor | None = None) -> Tensor:
        """Attention maps of all tokens (equations 2 and 3), differentiable in the tokens.

        Args:
            latents: ``(B, 4, h, w)`` without noise.
            noise: ``(B, 4, h, w)`` or ``(1, 4, h, w)``, standard normal.
            tokens: ``(N, D)``; default: the model's own.

        Returns:
            ``(B, N, s, s)`` float32 in [0, 1], s = ``map_size``; they sum to 1 over N.
        """
        from ulm.diffusion import taps

        pipeline, t = self.pipeline, self.setting("timestep")
        tokens = self.networks["tokens"].embedding if tokens is None else tokens
        latents, noise = latents.to(pipeline.device), noise.to(pipeline.device).expand_as(latents)
        noisy = pipeline.noisy(latents, t, noise)
        layers = self.used_layers
        if self.upsampling == "query":
            return taps.attention_maps(pipeline, noisy, t, tokens, layers=layers, size=self.map_size)
        total = torch.zeros((), device=pipeline.device)
        for stride in sorted({STRIDES[layer] for layer in layers}):
            group = tuple(layer for layer in layers if STRIDES[layer] == stride)
            native = taps.attention_maps(pipeline, noisy, t, tokens, layers=group, size=-(-latents.shape[-1] // stride))
            total = total + len(group) / len(layers) * enlarge(native, self.map_size)
        return total

    def _landmarks(self, images: Tensor) -> Tensor:
        parts = images.split(2 * self.micro_batch)
        return torch.cat([locate(self._ensembled(part), self.radius) for part in parts])

    def _ensembled(self, images: Tensor) -> Tensor:
        """``(B, K, S, S)`` maps of the chosen tokens, averaged over views of ``(B, 3, S, S)`` images in [0, 1]."""
        if not self.views:
            return enlarge(self._chosen_maps(images), self.image_size)
        # The identity is not among the views, as in the authors' code.
        affines = [self._draw(1, generator(CPU, self.seed, 6, view)).to(images) for view in range(self.views)]
        maps = (self._chosen_maps(warp(images, affine), view) for view, affine in enumerate(affines))
        return ensemble(maps, affines, self.image_size, self.setting("coverage"))

    def _chosen_maps(self, images: Tensor, view: int = 0) -> Tensor:
        return self._all_maps(images, view)[:, self.networks["tokens"].chosen]

    def _all_maps(self, images: Tensor, view: int = 0) -> Tensor:
        # The same noise for every image: a prediction must not depend on the images beside it.
        latents = self.pipeline.latents(images)
        noise = torch.randn(1, *latents.shape[1:], generator=generator(CPU, self.seed, 7, view))
        return self.maps(latents, noise)

    @torch.no_grad()
    def attention(self, images: Tensor, tokens: str = "chosen", ensembled: bool = False) -> Tensor:
        """Attention maps, for figures.

        Args:
            images: ``(B, 3, H, W)`` RGB in [0, 1], or uint8.
            tokens: ``chosen`` (K, in the order of the landmarks) or ``all`` (N).
            ensembled: Average over the random views as ``predict`` does; ``chosen`` only.

        Returns:
            ``(B, K or N, s, s)`` float32 on the CPU, s = ``map_size``, or ``image_size`` if ensembled.

        Raises:
            InputError: Before ``fit``, for other ``tokens``, or if the images are smaller than the latents.
        """
        self._ready()
        if tokens not in ("chosen", "all") or (ensembled and tokens == "all"):
            raise InputError(f"found tokens={tokens!r}, ensembled={ensembled}; expected chosen, or all not ensembled")
        self._check_size(images.shape[-2:])
        find = self._ensembled if ensembled else self._all_maps if tokens == "all" else self._chosen_maps
        return torch.cat([find(self._prepare(part)).float().cpu() for part in images.split(2 * self.micro_batch)])

    # --- training -------------------------------------------------------------------------------------------------

    def _start_from(self, start: Trainable) -> None:
        start._ready()
        ours, wanted = self.networks["tokens"], (self.n_tokens, self.pipeline.token_dim)
        if start.name != self.name or tuple(start.networks["tokens"].embedding.shape) != wanted:
            raise InputError(f"cannot start from {start!r}: expected {wanted[0]} tokens of {wanted[1]} numbers")
        theirs = start.networks["tokens"]
        if not same_backbone(theirs.backbone, ours.backbone):
            warnings.warn("starting from tokens that another diffusion model was used for", RuntimeWarning, 3)
        with torch.no_grad():
            ours.embedding.copy_(theirs.embedding)

    def _optimisers(self) -> dict[str, torch.optim.Optimizer]:
        return {"tokens": torch.optim.Adam([self.networks["tokens"].embedding], lr=self.learning_rate)}

    def _batch(self, data: CachedDataset, step: int) -> tuple[Tensor, Tensor | None]:
        """Images of one step and their latents without noise, from the cache."""
        indices, _ = self._indices(data, step)
        return self._prepare(data.images_uint8(indices)), self._latents_of(data, indices)

    def _train_step(self, images: Tensor, pairs: Tensor | None, step: int) -> dict[str, Tensor]:
        """One step on ``(B, 3, S, S)`` images in [0, 1]; ``pairs`` are their latents ``(B, 4, h, w)``."""
        assert pairs is not None
        random = generator(CPU, self.seed, 3, step)
        affines = self._draw(len(images), random).to(images.device)
        noise = torch.randn(2, *pairs.shape, generator=random).to(images.device)
        tokens, optimiser = self.networks["tokens"], self.optimisers["tokens"]
        optimiser.zero_grad(set_to_none=True)
        totals: dict[str, Tensor] = {}
        counts = torch.zeros_like(tokens.usage)
        # Gradients of the parts add up to that of the mean over the batch.
        for part in torch.arange(len(images)).split(self.micro_batch):
            share = len(part) / len(images)
            losses, kept = self._losses(images[part], pairs[part], noise[:, part], affines[part])
            (share * sum(self.setting(name) * loss for name, loss in losses.items())).backward()
            for name, loss in losses.items():
                totals[name] = totals.get(name, 0.0) + share * loss.detach()
            counts += kept.flatten().bincount(minlength=self.n_tokens)
        optimiser.step()
        tokens.remember(counts)
        return totals

    def _losses(
        self, images: Tensor, latents: Tensor, noise: Tensor, affines: Tensor
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Losses of equations 5 and 6, mean over images, and the furthest points' tokens ``(B, K)``."""
        equivariant, views = bool(self.setting("equivariance")), [latents]
        if equivariant:
            with torch.no_grad():
                views.append(self.pipeline.latents(warp(images, affines)).to(latents))
        found = self.maps(torch.cat(views), noise[: len(views)].flatten(0, 1))
        maps, warped = found[: len(images)], found[len(images) :]
        local = top_kappa(maps, self.kappa, self.sigma, self.setting("locality"))
        # The authors' code spreads the points in the warped view.
        kept = furthest_tokens(warped if equivariant else maps, local, self.n_landmarks)
        lossy = kept if self.setting("losses_on") == "furthest" else local
        losses = {"localisation": sharpening_loss(pick(maps, lossy), self.sigma, self.setting("reduction"))}
        if equivariant:
            losses["equivariance"] = equivariance_loss(
                pick(maps, lossy), pick(warped, lossy), affines, self.setting("reduction")
            )
        return losses, kept

    def _draw(self, batch: int, random: torch.Generator) -> Tensor:
        return draw_affines(batch, random, self.rotation, self.setting("translation"), self.setting("zoom"))

    def _finish(self, data: CachedDataset) -> None:
        problem = diagnose(self._choose(data))
        if problem:
            warnings.warn(f"{self!r}: {problem}", RuntimeWarning, stacklevel=3)

    def choose(self, dataset: Dataset) -> Self:
        """Choose the K tokens on images of ``dataset`` (equation 10); ``fit`` does so at its end.

        Of each of ``selection_images`` random images, without a warp, K tokens are taken: furthest points among the
        kappa most local ones. The K tokens taken most often are the landmarks. For random tokens, call it by hand.

        Raises:
            InputError: Before there are tokens, or if the images are smaller than the latents.
        """
        self._ready()
        self._choose(self._check_data(dataset))
        return self

    @torch.no_grad()
    def _choose(self, data: CachedDataset) -> Tensor:
        """Choose, and return the chosen tokens' places ``(n, K, 2)`` in those images, normalised."""
        order = torch.randperm(len(data), generator=generator(CPU, self.seed, 4))[: self.selection_images]
        counts, places = torch.zeros(self.n_tokens), []
        for part in order.split(2 * self.micro_batch):
            latents = self._latents_of(data, part)
            noise = [torch.randn(latents.shape[1:], generator=generator(CPU, self.seed, 5, int(i))) for i in part]
            maps = self.maps(latents, torch.stack(noise))
            local = top_kappa(maps, self.kappa, self.sigma, self.setting("locality"))
            kept = furthest_tokens(maps, local, self.n_landmarks)
            counts += kept.flatten().bincount(minlength=self.n_tokens).cpu()
            places.append(peaks(maps).cpu())
        tokens = self.networks["tokens"]
        tokens.chosen.copy_(most_frequent(counts, self.n_landmarks))
        return torch.cat(places)[:, tokens.chosen.cpu()]


def default_layers(latent_size: int) -> tuple[int, ...]:
    """Equation 3's cross-attentions, for latents of any size.

    On the way up those whose grid is nearest to 16 x 16, and the first one after them: 7 to 10 (three of 16 x 16, one
    of 32 x 32) for the 64 x 64 latents of Stable Diffusion 1.5, 13 to 15 for latents of 16 x 16, as the pocket's.

    Args:
        latent_size: Side of the latents.
    """
    way_up = range(WAY_UP, len(STRIDES))
    stride = min(STRIDES[WAY_UP:], key=lambda s: abs(math.log2(latent_size / s / GRID)))
    last = max(layer for layer in way_up if STRIDES[layer] == stride)
    return tuple(layer for layer in way_up if STRIDES[layer] == stride or layer == last + 1)


class Tokens(nn.Module):
    """What is learned and saved.

    Attributes:
        embedding: ``(N, D)``, standard normal at first; takes the place of a text's embedding.
        chosen: int64 ``(K,)``, the tokens that are the landmarks; until they are chosen, the first K.
        usage: ``(N,)``, how often furthest points took each token of late.
        backbone: The fingerprint of the diffusion model.
    """

    def __init__(self, n: int, length: int, k: int, backbone: Tensor):
        super().__init__()
        self.embedding = nn.Parameter(torch.randn(n, length))
        self.register_buffer("chosen", torch.arange(k))
        self.register_buffer("usage", torch.zeros(n))
        self.register_buffer("backbone", backbone.clone())

    @torch.no_grad()
    def remember(self, counts: Tensor) -> None:
        """Count the tokens ``(N,)`` taken in one step and choose those taken most often of late."""
        self.usage.mul_(MEMORY).add_(counts)
        self.chosen.copy_(most_frequent(self.usage, len(self.chosen)))


# --- locality and choice ------------------------------------------------------------------------------------------


def peaks(maps: Tensor) -> Tensor:
    """Equation 7: the centre of the cell of each map's maximum.

    Args:
        maps: ``(..., s, s)``.

    Returns:
        ``(..., 2)`` float32, (x, y), normalised; no gradient.
    """
    size, place = maps.shape[-1], maps.detach().flatten(-2).argmax(-1)
    centres = geometry.cell_coordinates(size, device=maps.device)
    return torch.stack([centres[place % size], centres[place // size]], dim=-1)


def gaussian_targets(maps: Tensor, sigma: float) -> Tensor:
    """Equation 8: a Gaussian of height 1 at each map's own maximum; no gradient.

    Args:
        maps: ``(B, P, s, s)``.
        sigma: In pixels of the map.

    Returns:
        ``(B, P, s, s)`` float32.
    """
    size = maps.shape[-1]
    return geometry.gaussian_maps(peaks(maps), size, sigma * 2 / size)


@torch.no_grad()
def locality(maps: Tensor, sigma: float = 2.0, form: str = "softmax") -> Tensor:
    """The divergence of equation 9, ``KL(G_n || M_n)``: small where a token responds in one spot.

    Both are made distributions over pixels. ``softmax``, as in the authors' code: (G + 1e-5) over its sum, and the
    softmax of M. As M lies in [0, 1] that softmax is nearly flat, so the order of the tokens is that of their response
    near their own maximum; but the border cuts a target short, which costs log 2 at an edge and log 4 in a corner
    whatever the map is, and decides among weak maps. ``sum``: both divided by their sums, which compares shapes.

    Args:
        maps: ``(B, N, s, s)``.
        sigma: In pixels of the map.
        form: ``softmax`` or ``sum``.

    Returns:
        ``(B, N)`` float32.
    """
    target, maps = gaussian_targets(maps, sigma).flatten(-2), maps.detach().float().flatten(-2)
    if form == "softmax":
        target = target + 1e-5
        log_found = maps.log_softmax(-1)
    else:
        log_found = (maps / maps.sum(-1, keepdim=True).clamp_min(1e-30)).clamp_min(1e-30).log()
    target = target / target.sum(-1, keepdim=True)
    # sum_u G log G - G log M
    return (torch.xlogy(target, target) - target * log_found).sum(-1)


def top_kappa(maps: Tensor, kappa: int, sigma: float = 2.0, form: str = "softmax") -> Tensor:
    """Equation 9: the ``kappa`` most local tokens of each image, the most local first.

    Args:
        maps: ``(B, N, s, s)``.
        kappa: At most N.
        sigma: See :func:`locality`.
        form: See :func:`locality`.

    Returns:
        int64 ``(B, kappa)``.
    """
    return locality(maps, sigma, form).argsort(dim=-1, stable=True)[:, :kappa]


def furthest_tokens(maps: Tensor, among: Tensor, k: int) -> Tensor:
    """Equation 10: ``k`` of the tokens ``among`` ``(B, P)`` whose maxima in ``maps`` ``(B, N, s, s)`` lie far apart.

    Returns:
        int64 ``(B, k)``, indices of tokens.
    """
    return among.gather(1, geometry.furthest_points(peaks(pick(maps, among)), k))


def most_frequent(counts: Tensor, k: int) -> Tensor:
    """The ``k`` indices of the largest ``counts`` ``(N,)``, int64; ties go to the lower index."""
    return counts.argsort(descending=True, stable=True)[:k]


def pick(maps: Tensor, tokens: Tensor) -> Tensor:
    """The maps ``(B, P, s, s)`` of the tokens ``(B, P)`` out of ``(B, N, s, s)``."""
    return maps[torch.arange(len(maps), device=maps.device)[:, None], tokens]


# --- losses -------------------------------------------------------------------------------------------------------


def sharpening_loss(maps: Tensor, sigma: float = 2.0, reduction: str = "mean") -> Tensor:
    """Equation 6, ``E_n |M_n - G_n|^2``: each map is to be a Gaussian at its own maximum.

    Args:
        maps: ``(B, P, s, s)``.
        sigma: In pixels of the map.
        reduction: ``mean`` or ``sum`` of the squares over pixels; always the mean over tokens and images.
    """
    return _squares(maps - gaussian_targets(maps, sigma), reduction)


def equivariance_loss(maps: Tensor, warped: Tensor, affines: Tensor, reduction: str = "mean") -> Tensor:
    """Equation 5, ``E_n |T^-1(M_n(T(X))) - M_n(X)|^2``: maps are to move with the image.

    Gradients flow into both. What the warp pushed out of the image counts as well, as zeros.

    Args:
        maps: ``(B, P, s, s)`` of the images.
        warped: ``(B, P, s, s)`` of the warped images.
        affines: ``(B, 2, 3)``, the warps T, see :func:`warp`.
        reduction: See :func:`sharpening_loss`.
    """
    return _squares(warp(warped, invert_affines(affines)) - maps, reduction)


def _squares(difference: Tensor, reduction: str) -> Tensor:
    squares = difference.square()
    return squares.mean() if reduction == "mean" else squares.sum((-2, -1)).mean()


# --- views --------------------------------------------------------------------------------------------------------


def draw_affines(
    batch: int, random: torch.Generator, rotation: float = 15.0, translation: float = 0.25, zoom: float = 1.25
) -> Tensor:
    """Random affine maps from output to input coordinates, ``[s R | t]``.

    Args:
        batch: How many.
        random: Random numbers; its device is the maps' device.
        rotation: Largest angle in degrees.
        translation: Largest shift along each axis, in [-1, 1] units of the input.
        zoom: Largest enlargement: s is uniform in [1 / zoom, 1].

    Returns:
        ``(batch, 2, 3)`` float32.
    """
    angle, scale, x, y = torch.rand(4, batch, generator=random, device=random.device)
    angle = (2 * angle - 1) * math.radians(rotation)
    scale = 1 / zoom + scale * (1 - 1 / zoom)
    cos, sin = scale * angle.cos(), scale * angle.sin()
    shift = (2 * torch.stack([x, y], dim=-1) - 1) * translation
    linear = torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], -2)
    return torch.cat([linear, shift.unsqueeze(-1)], dim=-1)


def invert_affines(affines: Tensor) -> Tensor:
    """The inverse maps, ``(B, 2, 3)`` to ``(B, 2, 3)``."""
    linear = torch.linalg.inv(affines[..., :2])
    return torch.cat([linear, -linear @ affines[..., 2:]], dim=-1)


def warp(images: Tensor, affines: Tensor) -> Tensor:
    """Show at u what ``(B, C, H, W)`` images have at ``A u + t``, bilinearly; zeros outside.

    Args:
        images: ``(B, C, H, W)``.
        affines: ``(B, 2, 3)`` or ``(1, 2, 3)``, normalised coordinates with the edges at -1 and 1.
    """
    grid = F.affine_grid(affines.to(images).expand(len(images), -1, -1), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


def ensemble(maps: Iterable[Tensor], affines: Iterable[Tensor], size: int, coverage: bool = True) -> Tensor:
    """Equation 11: maps of several views, each warped back, added up.

    Args:
        maps: One ``(B, K, s, s)`` for each view; read one after the other.
        affines: The warp ``(1, 2, 3)`` or ``(B, 2, 3)`` that made each view.
        size: Side of the result; maps are enlarged before they are warped back.
        coverage: Divide by how many views cover a pixel (the authors' code): a plain sum favours the centre.

    Returns:
        ``(B, K, size, size)`` float32; 0 where no view reaches.
    """
    total = weight = torch.zeros(())
    for view, affine in zip(maps, affines, strict=True):
        large, inverse = enlarge(view.float(), size), invert_affines(affine)
        total = total.to(large) + warp(large, inverse)
        weight = weight.to(large) + warp(torch.ones_like(large[:, :1]), inverse)
    return torch.where(weight > 0, total / weight, 0.0) if coverage else total


def enlarge(maps: Tensor, size: int) -> Tensor:
    """``(B, K, s, s)`` to ``(B, K, size, size)``, bilinear."""
    return F.interpolate(maps, size=(size, size), mode="bilinear", align_corners=False)


def locate(maps: Tensor, radius: float = 0.0) -> Tensor:
    """Where maps are largest.

    Args:
        maps: ``(B, K, S, S)``, not negative.
        radius: In pixels: 0 is the centre of the largest pixel; else the centre of mass of what is not further off.

    Returns:
        ``(B, K, 2)`` float32, (x, y), pixels of the map, first pixel's centre at (0.5, 0.5).
    """
    size, best = maps.shape[-1], peaks(maps)
    if radius:
        offsets = geometry.pixel_grid(size, device=maps.device) - best[..., None, None, :]
        near = maps * (offsets.norm(dim=-1) * size / 2 <= radius)
        mass = near.sum((-2, -1)).clamp_min(1e-30).unsqueeze(-1)
        best = best + (near.unsqueeze(-1) * offsets).sum((-3, -2)) / mass
    return geometry.to_pixels(best, size)


def diagnose(places: Tensor, still: float = 0.01) -> str:
    """Words for tokens that 'cheat' by fixed places on the image (paper, section 4.3), or nothing.

    Args:
        places: ``(n, K, 2)`` normalised, of n images.
        still: Standard deviation over images, in [-1, 1] units, under which a token counts as fixed.
    """
    k = places.shape[1]
    fixed = int((places.std(0).norm(dim=-1) < still).sum()) if len(places) > 1 else 0
    if fixed <= k / 2:
        return ""
    return f"{fixed} of {k} tokens answer at one place of every image (raise equivariance, or train longer)"
