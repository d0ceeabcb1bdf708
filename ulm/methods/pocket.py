"""Training of the pocket pipeline: a latent diffusion model in Stable Diffusion 1.5's layout that a laptop can train.

One run, one checkpoint, four stages, in the order of Rombach et al. (High-Resolution Image Synthesis with Latent
Diffusion Models, CVPR 2022):

1. a CLIP-style text encoder, on captions alone: see :mod:`ulm.diffusion.phrases`. Afterwards it rests, as that of
   Stable Diffusion does;
2. a KL autoencoder: mean absolute error, a perceptual distance if asked for (activations of the book's own colourising
   network) and a small Kullback-Leibler term. Three of a latent's channels are to be the picture itself, shrunk: its
   lightness and, fainter, two differences of its colours. Its last act is to measure the *scaling factor*, one over
   the latents' deviation, and the deviation of each channel;
3. the U-Net, from noisy latents with their captions; one caption in ten is empty, for guidance without a classifier (Ho
   and Salimans, 2022). As colours are faint, noise hides them long before it hides shapes. At most timesteps, then,
   words decide the colours of parts that are there to be seen, and cross-attention has to find these parts. With
   colours as strong as lightness both vanish together, and only words for large areas, the background above all, are
   learnt in a short training. The U-Net predicts the clean latents, and each channel's error counts in units of its
   own deviation: a small U-Net that predicts the noise, as Stable Diffusion 1.5 does, spends thousands of steps on
   handing that noise through. If asked for, pictures have half the side at first, four times as many in a step, as
   Stable Diffusion's first version learnt from 256 pixels before 512. What ships is a moving average of the weights;
4. the decoder once more, by itself, if asked for: the latents stay as they are, so that the U-Net stays right. Stable
   Diffusion's later decoders (ft-EMA, ft-MSE) were made in this way.

**Why these sizes** (``CONFIGS["pocket"]``). Words for small parts are learnt late, after some 30,000 pictures of
simple faces, so what counts is how many a processor gets through. With latents of 16 x 16 places a step costs 0.28 G
multiply-accumulates a picture forwards, a fifth of what 32 x 32 would, and takes two fifths of the time.
StableKeypoints reads Stable Diffusion's cross-attention on grids of 16 x 16; here the finest level has that grid, and
is read instead (:func:`ulm.methods.stable_keypoints.default_layers`). An image has 64 x 64 pixels; its latent keeps a
twelfth of its numbers. A narrow autoencoder will do; it normalises all channels together, as the colours lie in their
differences. The channels go to the coarse levels, where they cost little time.
"""

from __future__ import annotations

import copy
import json
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from torch import Tensor, nn

from ulm import runs, zoo
from ulm.datasets.base import Dataset, Info
from ulm.datasets.cache import CachedDataset, cached
from ulm.datasets.hashing import digest
from ulm.diffusion import pipelines, sampling
from ulm.diffusion.captions import VOCABULARY, captions, words
from ulm.diffusion.phrases import Phrases
from ulm.diffusion.pipelines import CONFIGS, Pipeline
from ulm.diffusion.taps import cross_attentions
from ulm.errors import InputError
from ulm.methods.training import Trainable, cosine
from ulm.networks import perceptual as perceptual_networks
from ulm.networks.perceptual import VGG
from ulm.runs import autocast, generator

TIMESTEPS = 1000
LOOKS = 1.4
"""Deviation of the queries and keys of fresh cross-attentions."""
MOST_NEW_WORDS = 4000
_CPU = torch.device("cpu")


class Gallery(Dataset):
    """Several data sets of one image size, one after another, with their captions; images alone, no landmarks.

    Args:
        datasets: One or more data sets; each is drawn or decoded once (see :func:`ulm.datasets.cached`).
        texts: One caption an image; None: what :func:`ulm.diffusion.captions.captions` finds.

    Raises:
        InputError: No data set, different sizes, or another number of captions than images.
    """

    def __init__(self, datasets: Dataset | Sequence[Dataset], texts: Sequence[str] | None = None):
        parts = [datasets] if isinstance(datasets, Dataset) else list(datasets)
        sizes = sorted({part.size for part in parts})
        if len(sizes) != 1:
            raise InputError(f"found data sets of sizes {sizes}, expected at least one, and one size for all")
        found = [text for part in parts for text in captions(part)] if texts is None else list(texts)
        self.parts, self.texts = [cached(part) for part in parts], found
        self.ends = np.cumsum([len(part) for part in self.parts])
        if len(found) != len(self):
            raise InputError(f"found {len(found)} captions for {len(self)} images, expected one each")
        self.info = Info(name="+".join(part.info.name for part in self.parts))
        self.split, self.size = parts[0].split, sizes[0]

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, index: int) -> dict[str, Any]:
        which, place = self._locate(range(len(self))[index])
        return {"image": self.parts[which][place]["image"], "caption": self.texts[index]}

    @property
    def fingerprint(self) -> str:
        """Twelve hexadecimal digits of all parts' fingerprints and of the captions."""
        return digest([part.fingerprint for part in self.parts], self.texts)

    def images_uint8(self, indices: Sequence[int] | Tensor) -> Tensor:
        """uint8 ``(B, 3, S, S)``."""
        located = [self._locate(int(i)) for i in indices]
        return torch.cat([self.parts[which].images_uint8([place]) for which, place in located])

    def _locate(self, index: int) -> tuple[int, int]:
        which = int(np.searchsorted(self.ends, index, side="right"))
        return which, index - (int(self.ends[which - 1]) if which else 0)


class Scaling(nn.Module):
    """The factor that gives latents a deviation of 1, and each channel's own afterwards; 0 until they are measured."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("factor", torch.zeros(()))
        self.register_buffer("deviations", torch.zeros(channels))


class Pocket(Trainable):
    """Trains a pipeline of Stable Diffusion's topology from captioned images, of scenes or of one's own.

    Args:
        config: A key of :data:`ulm.diffusion.pipelines.CONFIGS`, or a dict like theirs.
        steps: Steps of training in all.
        text_steps: How many of them, the first ones, train the text encoder, on the captions of four batches each; 0
            keeps that of ``start``.
        autoencoder_steps: How many of them, those after the text encoder's, train the autoencoder; 0 keeps that of
            ``start``.
        half_steps: How many of the U-Net's steps, its first ones, see pictures of half the side, four times as many in
            a step.
        decoder_steps: How many of them, the last ones, train the decoder alone.
        batch_size: Images in a step; at half the side four times as many.
        text_rate: Of AdamW for the text encoder; a short warm-up, then a half cosine to zero.
        learning_rate: The same for the U-Net; a short warm-up, then a half cosine to zero.
        attention_rate: Share of that rate for queries and keys of the cross-attentions. Below 1 words are learnt later:
            at a half, eyes and mouths of simple faces were not yet heard after 600 steps.
        autoencoder_rate: The same for the autoencoder, and again for the decoder alone.
        perceptual: The perceptual network of the autoencoder's loss, see
            :func:`ulm.networks.perceptual.load`; empty: no such term.
        perceptual_weight: Of that term.
        kl_weight: Of the Kullback-Leibler term, a mean over the numbers of a latent (LDM: 1e-6 of the sums).
        thumbnail_weight: Of the mean absolute difference between the first three channels of a latent and the picture
            shrunk to its size (:func:`thumbnail`); 0: latents are free.
        colour: How much fainter than its lightness the colours of that picture are.
        empty: Share of captions left out, for guidance.
        drop_part: Share of a caption's parts left out, so that short captions work too.
        ema: Decay of the moving average of the weights; its start is quicker.
        precision: ``auto`` (bfloat16 where the device is fast at it), ``float32`` or ``bfloat16``.
        seed: Of initialisation, order, noise and captions' gaps.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N``.

    Attributes:
        vocabulary_: Words that are one token each: those of the scenes' captions, and of the training captions.

    Raises:
        InputError: For a bad value.

    Example:
        >>> scenes = [datasets.load(f"procedural:{s}", "train", 64, 4000) for s in ("faces-wild", "birds", "cats")]
        >>> pocket = Pocket(steps=20_000).fit(scenes, checkpoint="pocket.safetensors")
        >>> pictures = pocket.sample(["a face with red hair, looking left"])
        >>> pocket.save_pretrained("pocket")
    """

    name = "pocket"
    detector_parts = ("vae", "unet", "text_encoder", "scaling")
    saved_parts = detector_parts
    # Bumped when the same settings no longer give the same weights.
    version = 4

    def __init__(
        self,
        config: str | dict[str, Any] = "pocket",
        steps: int = 20_000,
        text_steps: int = 500,
        autoencoder_steps: int = 2_000,
        half_steps: int = 0,
        decoder_steps: int = 0,
        batch_size: int = 16,
        text_rate: float = 2e-3,
        learning_rate: float = 1e-3,
        attention_rate: float = 1.0,
        autoencoder_rate: float = 1e-3,
        perceptual: str = "vgg16-colour",
        perceptual_weight: float = 0.1,
        kl_weight: float = 1e-4,
        thumbnail_weight: float = 1.0,
        colour: float = 0.25,
        empty: float = 0.1,
        drop_part: float = 0.1,
        ema: float = 0.999,
        precision: str = "auto",
        seed: int = 0,
        device: str = "auto",
    ):
        for name in self.parameter_names():
            setattr(self, name, locals()[name])
        self._check_common()
        if isinstance(config, str) and config not in CONFIGS:
            raise InputError(f"found config={config!r}, expected one of {', '.join(CONFIGS)}, or a dict like theirs")
        others = {
            "text_steps": text_steps,
            "autoencoder_steps": autoencoder_steps,
            "half_steps": half_steps,
            "decoder_steps": decoder_steps,
        }
        if min(others.values()) < 0 or sum(others.values()) >= steps:
            found = ", ".join(f"{name}={value}" for name, value in others.items())
            raise InputError(f"found {found}, expected at least 0, and together less than steps={steps}")
        shares = {"empty": empty, "drop_part": drop_part, "ema": ema}
        if bad := [f"{n}={v!r}" for n, v in shares.items() if not 0 <= v < 1]:
            raise InputError(f"found {', '.join(bad)}, expected at least 0 and below 1")
        if not 0 < attention_rate <= 1:
            raise InputError(f"found attention_rate={attention_rate!r}, expected more than 0 and at most 1")
        if precision not in ("auto", "float32", "bfloat16"):
            raise InputError(f"found precision={precision!r}, expected auto, float32 or bfloat16")
        self.sizes = copy.deepcopy(CONFIGS[config] if isinstance(config, str) else config)
        self.image_size = self.sizes["latent_size"] * 2 ** (len(self.sizes["vae"]["widths"]) - 1)
        self.vocabulary_: list[str] = list(VOCABULARY)

    # --- networks -------------------------------------------------------------------------------------------------

    def _build(self) -> nn.ModuleDict:
        made = pipelines.build(self.sizes, self.seed, self.vocabulary_)
        self.tokenizer_ = made.tokenizer
        self.scheduler_ = DDIMScheduler.from_config(made.scheduler.config, prediction_type="sample")
        self.phrases = Phrases(self.tokenizer_, self.sizes["text"]["width"])
        begin(made, self.phrases.nothing)
        average = copy.deepcopy(made.unet)
        for network in made.networks.values():
            network.requires_grad_(True)
        return nn.ModuleDict({**made.networks, "ema_unet": average, "scaling": Scaling(made.unet.config.in_channels)})

    def initialise(self) -> None:
        """Build the networks from ``seed`` and the perceptual network of the autoencoder's loss."""
        super().initialise()
        # abar_t
        self.alphas = self.scheduler_.alphas_cumprod.float().to(self.torch_device)
        self.judge: tuple[VGG, ...] = ()
        if self.perceptual and self.autoencoder_steps + self.decoder_steps:
            self.judge = (perceptual_networks.load(self.perceptual, zoo.folder()).to(self.torch_device),)

    def _optimisers(self) -> dict[str, torch.optim.Optimizer]:
        nets = self.networks
        adam = lambda *groups: torch.optim.AdamW(  # noqa: E731
            [{"params": [p for p in group if p.requires_grad], "share": share} for group, share in groups],
            betas=(0.9, 0.99), weight_decay=1e-4, fused=True,
        )  # fmt: skip
        looks = _queries_and_keys(nets["unet"])
        known = {id(p) for p in looks}
        others = [p for p in nets["unet"].parameters() if id(p) not in known]
        return {
            "text": adam((nets["text_encoder"].parameters(), 1.0)),
            "autoencoder": adam((nets["vae"].parameters(), 1.0)),
            "decoder": adam((_decoder(nets["vae"]), 1.0)),
            "denoiser": adam((others, 1.0), (looks, self.attention_rate)),
        }

    def _identity(self) -> dict[str, Any]:
        return super()._identity() | {"version": self.version, "sizes": self.sizes, "vocabulary": self.vocabulary_}

    def _resume(self, path: Path, identity: str) -> tuple[int, float]:
        where = super()._resume(path, identity)
        for optimiser in self.optimisers.values():
            for weight, state in optimiser.state.items():
                # The fused kernel walks through memory: moments must lie there as their weights do (channels last).
                for name, value in state.items():
                    if value.shape == weight.shape:
                        state[name] = torch.empty_like(weight, dtype=value.dtype).copy_(value)
        return where

    # --- data -----------------------------------------------------------------------------------------------------

    def fit(self, dataset: Dataset | Sequence[Dataset], **options: Any) -> Self:  # type: ignore[override]
        """Train on one or more data sets with captions.

        Args:
            dataset: Data sets of any size in pixels (best: ``image_size``), or a :class:`Gallery` with captions of
                one's own. Images without a caption train the model too, under the empty caption.
            **options: Those of :meth:`ulm.methods.training.Trainable.fit`: ``checkpoint``, ``checkpoint_seconds``,
                ``monitor``, ``log_every``, ``progress`` and ``start``, a trained :class:`Pocket` to go on from.

        Raises:
            InputError: As there, and for captions or sizes that do not fit together.
        """
        gallery = dataset if isinstance(dataset, Gallery) else Gallery(dataset)
        start = options.get("start")
        self.vocabulary_ = list(start.vocabulary_) if isinstance(start, Pocket) else vocabulary(gallery.texts)
        return super().fit(gallery, **options)

    def _check_data(self, dataset: Dataset) -> CachedDataset:
        if len(dataset) < 2:
            raise InputError(f"found {len(dataset)} training image(s), expected at least 2; give more photographs")
        # A gallery has all that the loop asks for: a length, a fingerprint and images_uint8.
        return cast(CachedDataset, dataset)

    def _start_from(self, start: Trainable) -> None:
        super()._start_from(start)
        self.networks["ema_unet"].load_state_dict(self.networks["unet"].state_dict())

    def _stage(self, step: int) -> tuple[str, int, int]:
        """Which stage a step belongs to, how many of the stage's steps came before it, and how many there are."""
        lengths = {
            "text": self.text_steps,
            "autoencoder": self.autoencoder_steps,
            "denoiser": self.steps - self.text_steps - self.autoencoder_steps - self.decoder_steps,
            "decoder": self.decoder_steps,
        }
        for name, length in lengths.items():
            if step < length:
                return name, step, length
            step -= length
        raise IndexError(step)

    def _batch(self, data: CachedDataset, step: int) -> tuple[Tensor, Tensor | None]:
        """Images of one step, and their captions as tokens ``(B, L)`` where the stage reads them.

        While the text encoder trains, captions of four batches and no images.
        """
        stage, texts, halved = self._stage(step)[0], cast(Gallery, data).texts, self._halved(step)
        # Four batches of the loop's order, so that all images are seen equally often.
        batches = range(4 * step, 4 * step + 4) if halved or stage == "text" else [step]
        indices = torch.cat([self._indices(data, batch)[0] for batch in batches])
        images = torch.empty(0) if stage == "text" else self._prepare(data.images_uint8(indices))
        if stage not in ("text", "denoiser"):
            return images, None
        rng = np.random.default_rng([self.seed, 3, step])
        tokens = self._tokens([self._gap(texts[int(i)], rng) for i in indices])
        return F.avg_pool2d(images, 2) if halved else images, tokens

    def _halved(self, step: int) -> bool:
        stage, done, _ = self._stage(step)
        return stage == "denoiser" and done < self.half_steps

    def _images_seen(self, steps: int) -> int:
        before = self.text_steps + self.autoencoder_steps
        halved = min(max(steps - before, 0), self.half_steps)
        return (max(0, steps - self.text_steps) + 3 * halved) * self.batch_size

    def _gap(self, text: str, rng: np.random.Generator) -> str:
        """The caption, at times without some of its parts, or empty."""
        drawn = rng.random(1 + text.count(","))
        if rng.random() < self.empty:
            return ""
        parts = [p for i, p in enumerate(text.split(",")) if i == 0 or drawn[i] >= self.drop_part]
        return ",".join(parts)

    def _tokens(self, texts: list[str]) -> Tensor:
        length = self.sizes["text"]["length"]
        made = self.tokenizer_(texts, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        return made.input_ids.to(self.torch_device)

    # --- steps ----------------------------------------------------------------------------------------------------

    def _train_step(self, images: Tensor, tokens: Tensor | None, step: int) -> dict[str, Tensor]:
        stage, done, steps = self._stage(step)
        if tokens is None:
            take = self._autoencoder_step if stage == "autoencoder" else self._decoder_step
            return take(images, step, cosine(done, steps))
        if stage == "text":
            return self._text_step(tokens, cosine(done, steps, max(1, steps // 10)))
        if not done:
            self._begin_denoising(images)
        losses = self._denoiser_step(images, tokens, step, cosine(done, steps, max(1, steps // 20)))
        self._average(done)
        return losses

    def _text_step(self, tokens: Tensor, rate: float) -> dict[str, Tensor]:
        loss = self.phrases.loss(self.networks["text_encoder"](tokens).last_hidden_state, tokens.cpu())
        self._descend("text", loss, self.text_rate * rate)
        return {"phrases": loss.detach()}

    def _autoencoder_step(self, images: Tensor, step: int, rate: float) -> dict[str, Tensor]:
        posterior = self._posterior(images)
        eps = torch.randn(posterior.mean.shape, generator=generator(_CPU, self.seed, 4, step)).to(images.device)
        with autocast(self.torch_device, self.precision):
            # z = mu + sigma eps
            redrawn = self.networks["vae"].decode(posterior.mean + posterior.std * eps).sample.float() / 2 + 0.5
        loss, losses = self._likeness(redrawn, images)
        losses["kl"] = posterior.kl().mean() / eps[0].numel()
        loss = loss + self.kl_weight * losses["kl"]
        if self.thumbnail_weight:
            small = thumbnail(images, posterior.mean.shape[-1], self.colour)
            losses["thumbnail"] = (posterior.mean[:, :3] - small).abs().mean()
            loss = loss + self.thumbnail_weight * losses["thumbnail"]
        self._descend("autoencoder", loss, self.autoencoder_rate * rate)
        return {name: value.detach() for name, value in losses.items()}

    def _decoder_step(self, images: Tensor, step: int, rate: float) -> dict[str, Tensor]:
        with torch.no_grad():
            latents = self._drawn_latents(images, generator(_CPU, self.seed, 6, step))
        with autocast(self.torch_device, self.precision):
            redrawn = self.networks["vae"].decode(latents).sample.float() / 2 + 0.5
        loss, losses = self._likeness(redrawn, images)
        self._descend("decoder", loss, self.autoencoder_rate * rate)
        return {name: value.detach() for name, value in losses.items()}

    def _likeness(self, redrawn: Tensor, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """What the autoencoder's pictures are judged by: the weighted sum, and its terms."""
        losses = {"pixels": (redrawn - images).abs().mean()}
        if not self.judge:
            return losses["pixels"], losses
        with autocast(self.torch_device, self.precision):
            losses["perceptual"] = perceptual_distance(self.judge[0], redrawn, images)
        return losses["pixels"] + self.perceptual_weight * losses["perceptual"], losses

    @torch.no_grad()
    def _begin_denoising(self, images: Tensor) -> None:
        """Measure on the first batch the channels' deviations, and a new autoencoder's factor (LDM, appendix G)."""
        scaling: Any = self.networks["scaling"]
        latents = self._posterior(images).mean
        if self.autoencoder_steps or scaling.factor == 0:
            scaling.factor.copy_(1 / latents.std().clamp_min(1e-6))
        scaling.deviations.copy_(scaling.factor * latents.std((0, 2, 3)))

    def _drawn_latents(self, images: Tensor, random: torch.Generator) -> Tensor:
        """Samples of the posterior, not scaled."""
        posterior = self._posterior(images)
        return posterior.mean + posterior.std * torch.randn(posterior.mean.shape, generator=random).to(images.device)

    def _posterior(self, images: Tensor) -> DiagonalGaussianDistribution:
        vae: Any = self.networks["vae"]
        with autocast(self.torch_device, self.precision):
            moments = vae.quant_conv(vae.encoder(2 * images - 1))
        return DiagonalGaussianDistribution(moments.float())

    def _denoiser_step(self, images: Tensor, tokens: Tensor, step: int, rate: float) -> dict[str, Tensor]:
        random = generator(_CPU, self.seed, 5, step)
        with torch.no_grad():
            latents = self._drawn_latents(images, random) * self.networks["scaling"].factor
            context = self.networks["text_encoder"](tokens).last_hidden_state
        eps = torch.randn(latents.shape, generator=random).to(images.device)
        # One timestep of each B-th part of all: a step sees much and little noise.
        t = (torch.randperm(len(images), generator=random) + torch.rand(len(images), generator=random)) / len(images)
        t = (TIMESTEPS * t).long().to(images.device)
        alpha = self.alphas[t][:, None, None, None]
        # z_t = sqrt(abar_t) z_0 + sqrt(1 - abar_t) eps  (DDPM, equation 4)
        noisy = (alpha.sqrt() * latents + (1 - alpha).sqrt() * eps).contiguous(memory_format=torch.channels_last)
        with autocast(self.torch_device, self.precision):
            predicted = self.networks["unet"](noisy, t, context).sample
        d, weight = self._weights(alpha)
        loss = (weight * ((predicted.float() - latents) / d).square()).mean()
        self._descend("denoiser", loss, self.learning_rate * rate)
        return {"latents": loss.detach()}

    def _weights(self, alpha: Tensor) -> tuple[Tensor, Tensor]:
        """Deviations ``(4, 1, 1)`` of the channels, and how much errors in units of them count at each timestep."""
        d = self.networks["scaling"].deviations[:, None, None].clamp_min(0.1)
        # SNR = d^2 abar_t / (1 - abar_t); weight 1 + min(SNR, 5)
        return d, 1 + (d.square() * alpha / (1 - alpha)).clamp_max(5)

    def _descend(self, name: str, loss: Tensor, rate: float) -> None:
        optimiser = self.optimisers[name]
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        for group in optimiser.param_groups:
            group["lr"] = rate * group["share"]
            nn.utils.clip_grad_norm_(group["params"], 1.0)
        optimiser.step()

    @torch.no_grad()
    def _average(self, step: int) -> None:
        """Moving average of the weights; its decay grows to ``ema`` so that the first weights are soon forgotten."""
        decay = min(self.ema, (1 + step) / (10 + step))
        ours, theirs = (list(self.networks[name].parameters()) for name in ("ema_unet", "unet"))
        torch._foreach_lerp_(ours, theirs, 1 - decay)

    def _finish(self, data: CachedDataset) -> None:
        """A rate that is too high ends in a U-Net that predicts nothing at all, for good."""
        last = [entry["latents"] for entry in self.history_ if "latents" in entry][-5:]
        # Errors in units of the deviations are then 1.
        nothing = self._weights(self.alphas[:, None, None, None])[1].mean().item()
        if self._stage(self.steps - self.decoder_steps - 1)[2] > 200 and np.mean(last) > 0.9 * nothing:
            warnings.warn(
                f"{self!r}: the loss of the U-Net is {np.mean(last):.2f}, that of predicting nothing is {nothing:.2f}; "
                "lower learning_rate",
                RuntimeWarning,
                stacklevel=3,
            )

    # --- what comes out -------------------------------------------------------------------------------------------

    def pipeline(self) -> Pipeline:
        """The trained pipeline, a copy with the averaged weights. Raises InputError before ``fit``."""
        self._ready()
        vae = copy.deepcopy(self.networks["vae"])
        vae.register_to_config(scaling_factor=float(self.networks["scaling"].factor) or 1.0)
        unet, text_encoder = (copy.deepcopy(self.networks[name]) for name in ("ema_unet", "text_encoder"))
        return Pipeline(unet, vae, text_encoder, self.tokenizer_, self.scheduler_, self.name)

    def sample(self, texts: Sequence[str], steps: int = 25, guidance: float = 3.0, seed: int = 0) -> Tensor:
        """Draw one picture a text with the weights as they are now; see :func:`ulm.diffusion.sampling.sample`."""
        return sampling.sample(self.pipeline(), texts, steps, guidance, seed, self.precision)

    def save_pretrained(
        self, folder: Path | str, detector_only: bool = False, card: dict[str, Any] | None = None
    ) -> None:
        """Write the pipeline in diffusers' layout, fp16 safetensors, and beside it ``config.json``.

        ``diffusers.StableDiffusionPipeline.from_pretrained(folder)`` and :func:`ulm.diffusion.load` read it.

        Args:
            folder: Made if it is not there; a pipeline that is there is replaced.
            detector_only: Changes nothing: there is nothing to leave out.
            card: Facts on how the model was made.
        """
        folder = Path(folder)
        self.pipeline().save(folder)
        files = sorted(folder.glob("*/*.safetensors"))
        config = {
            "method": self.name,
            "parameters": self.get_params() | {"device": "auto"},
            "networks": sorted(self.detector_parts),
            "sha256": {f.relative_to(folder).as_posix(): zoo.checksum(f) for f in files},
            "vocabulary": self.vocabulary_,
            "history": self.history_,
            "card": card or {},
        }
        runs.atomic_write(folder / "config.json", json.dumps(config, indent=1) + "\n")

    def _load_weights(self, folder: Path, names: list[str]) -> None:
        self.vocabulary_ = list(zoo.config(folder).get("vocabulary", VOCABULARY))
        trained = pipelines.load(str(folder), "cpu", "float32")
        self.initialise()
        try:
            for name, network in trained.networks.items():
                self.networks[name].load_state_dict(network.state_dict())
                if f"ema_{name}" in self.networks:
                    self.networks[f"ema_{name}"].load_state_dict(network.state_dict())
        except RuntimeError as error:
            raise InputError(f"{folder}: weights and config.json do not fit together; make the model again") from error
        scaling: Any = self.networks["scaling"]
        scaling.factor.fill_(trained.vae.config.scaling_factor)


@torch.no_grad()
def begin(pipeline: Pipeline, nothing: Tensor) -> None:
    """Start values of fresh networks that differ from the library's.

    Words have vectors of deviation 1 and places of 0.5, so that a text encoder can tell them apart at once; the noise
    that the autoencoder adds to latents has a deviation of about exp(-4), so that colours are not drowned in it; the
    U-Net predicts nothing at first. Queries and keys of cross-attention have deviation :data:`LOOKS`, and what a text
    says where no phrase ends has the key 0 and the value 0: most of its tokens are of that kind, and phrases are to
    outweigh them.

    Args:
        pipeline: A fresh one; its weights are changed in place.
        nothing: ``(D,)``, what the text encoder is to say there.
    """
    log_variances = slice(pipeline.vae.config.latent_channels, None)
    pipeline.vae.quant_conv.bias[log_variances] = -8
    pipeline.vae.quant_conv.weight[log_variances] *= 0.1
    words = pipeline.text_encoder.get_input_embeddings()
    for module in pipeline.text_encoder.modules():
        if isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=1.0 if module is words else 0.5)
    nn.init.zeros_(pipeline.unet.conv_out.weight)
    nn.init.zeros_(pipeline.unet.conv_out.bias)
    for _, attention in cross_attentions(pipeline.unet):
        for layer in (attention.to_q, attention.to_k):
            nn.init.normal_(layer.weight, std=LOOKS * layer.in_features**-0.5)
        for layer in (attention.to_k, attention.to_v):
            # W <- W - W n n^T / n^T n
            layer.weight -= torch.outer(layer.weight @ nothing, nothing) / nothing.square().sum()


def thumbnail(images: Tensor, size: int, colour: float) -> Tensor:
    """Pictures, shrunk: their lightness and, fainter, two differences of colours.

    Args:
        images: ``(B, 3, H, W)`` RGB in [0, 1].
        size: Side of the result.
        colour: What the differences are multiplied by.

    Returns:
        ``(B, 3, size, size)``: ``(R + G + B) / 3``, ``colour (R - B) / 2``, ``colour (2 G - R - B) / 4`` of values in
        [-1, 1].
    """
    red, green, blue = F.adaptive_avg_pool2d(2 * images - 1, size).unbind(1)
    return torch.stack(
        [(red + green + blue) / 3, colour * (red - blue) / 2, colour * (2 * green - red - blue) / 4], dim=1
    )


def _queries_and_keys(unet: nn.Module) -> list[nn.Parameter]:
    """The weights that decide where cross-attentions look."""
    return [layer.weight for _, each in cross_attentions(unet) for layer in (each.to_q, each.to_k)]


def _decoder(vae: nn.Module) -> list[nn.Parameter]:
    """What comes after the latents."""
    return [p for name, p in vae.named_parameters() if name.startswith(("decoder.", "post_quant_conv."))]


def vocabulary(texts: Sequence[str]) -> list[str]:
    """Words that are one token each: the scenes', then the most frequent others of ``texts``, at most 4,000."""
    counts = Counter(word for text in dict.fromkeys(texts) for word in words(text))
    others = sorted(set(counts) - set(VOCABULARY), key=lambda word: (-counts[word], word))
    return [*VOCABULARY, *others[:MOST_NEW_WORDS]]


def perceptual_distance(trunk: VGG, first: Tensor, second: Tensor) -> Tensor:
    """Mean squared distance of activations that are normalised over the channels (as LPIPS, Zhang et al., CVPR 2018).

    Args:
        trunk: A frozen perceptual network.
        first: ``(B, 3, H, W)`` in [0, 1]; gradients flow here.
        second: The same, without gradients.

    Returns:
        A scalar from 0 to 4, the mean over all taps and places.
    """
    with torch.no_grad():
        wanted = [F.normalize(tap.float(), dim=1) for tap in trunk(second)]
    found = [F.normalize(tap.float(), dim=1) for tap in trunk(first)]
    distances = [(a - b).square().sum(1).mean() for a, b in zip(found, wanted, strict=True)]
    return torch.stack(distances).mean()
