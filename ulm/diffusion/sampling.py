"""Pictures from texts: deterministic DDIM with classifier-free guidance."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor
from tqdm.auto import tqdm

from ulm.diffusion.pipelines import Pipeline
from ulm.errors import InputError
from ulm.runs import autocast, generator

_CPU = torch.device("cpu")


@torch.no_grad()
def sample(
    pipeline: Pipeline,
    texts: Sequence[str],
    steps: int = 25,
    guidance: float = 3.0,
    seed: int = 0,
    precision: str = "auto",
    batch: int = 32,
    progress: bool = False,
) -> Tensor:
    """Draw pictures by deterministic DDIM (Song et al., ICLR 2021) with classifier-free guidance.

    Args:
        pipeline: Any pipeline.
        texts: One caption a picture.
        steps: Of DDIM, at most 1,000.
        guidance: ``w`` of ``eps(empty) + w (eps(text) - eps(empty))``; 1: no guidance, half the work.
        seed: Decides the pictures: picture i has the same noise whatever the others are.
        precision: See :func:`ulm.runs.autocast`.
        batch: Pictures drawn at once.
        progress: Show a bar.

    Returns:
        ``(B, 3, S, S)`` float32 in [0, 1], on the CPU.

    Raises:
        InputError: No text, or too many or too few steps.
    """
    texts = [texts] if isinstance(texts, str) else list(texts)
    if not texts or not 1 <= steps <= len(pipeline.scheduler.alphas_cumprod):
        raise InputError(f"found {len(texts)} text(s) and {steps} steps, expected at least 1 text, 1 to 1000 steps")
    side = pipeline.latent_size
    noise = torch.stack([torch.randn(4, side, side, generator=generator(_CPU, seed, i)) for i in range(len(texts))])
    drawn = []
    for start in tqdm(range(0, len(texts), batch), disable=not progress, desc="pictures"):
        latents = noise[start : start + batch].to(pipeline.device)
        with autocast(pipeline.device, precision):
            latents = _denoise(pipeline, latents, texts[start : start + batch], steps, guidance)
            drawn.append(pipeline.decode(latents).cpu())
    return torch.cat(drawn)


def _denoise(pipeline: Pipeline, latents: Tensor, texts: list[str], steps: int, guidance: float) -> Tensor:
    scheduler = copy.deepcopy(pipeline.scheduler)
    scheduler.set_timesteps(steps)
    guided = guidance != 1
    context = pipeline.embed(["" for _ in texts] + texts if guided else texts).to(pipeline.dtype)
    for t in scheduler.timesteps:
        doubled = torch.cat([latents, latents]) if guided else latents
        eps = pipeline.unet(doubled.to(pipeline.dtype), t.to(latents.device), context).sample.float()
        if guided:
            without, with_ = eps.chunk(2)
            eps = without + guidance * (with_ - without)
        latents = scheduler.step(eps, t, latents).prev_sample
    return latents
