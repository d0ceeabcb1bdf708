"""DDIM inversion: from a clean latent back to the noise it would be generated from, without any randomness."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ulm.diffusion.pipelines import Pipeline
from ulm.errors import InputError


def inversion_steps(
    pipeline: Pipeline, latents: Tensor, context: Tensor, steps: int = 50, first: int = -1
) -> Iterator[tuple[int, Tensor]]:
    """Walk from clean latents to noise by deterministic DDIM (Song et al. 2021, Eq. 13 with eta = 0, run backwards).

    At level ``t``, with ``e = unet(z_t, t)``: ``z_0 = (z_t - sqrt(1 - abar_t) e) / sqrt(abar_t)`` and
    ``z_next = sqrt(abar_next) z_0 + sqrt(1 - abar_next) e``.

    Args:
        pipeline: Whose U-Net predicts the noise, the velocity or the clean latents.
        latents: ``(B, 4, h, w)`` clean latents.
        context: ``(L, D)``, ``(1, L, D)`` or ``(B, L, D)``; the papers use the empty caption.
        steps: Number of U-Net calls; timesteps are 1000 / ``steps`` apart.
        first: Timestep that the U-Net is told of the clean latents. The release of Diffusion Hyperfeatures starts from
            -1, which is not a timestep that was trained on; 0 is the nearest that was. Either counts as free of noise.

    Yields:
        Before each U-Net call nothing; after it the timestep of the call and the latents that went into it, float32.
        Taps that are open around the loop then hold what this call left. The latents after the last step come as the
        timestep ``1000 - 1000 / steps``, without a call.

    Raises:
        InputError: If there are more steps than timesteps, or fewer than one.
    """
    levels = timesteps(pipeline, steps)
    context = context.to(pipeline.device, pipeline.dtype).expand(len(latents), -1, -1)
    latents, alpha = latents.to(pipeline.device, torch.float32), torch.ones(())
    kind = pipeline.scheduler.config.prediction_type
    for t, following in zip([first, *levels[:-1]], levels, strict=True):
        with torch.no_grad():
            output = pipeline.unet(latents.to(pipeline.dtype), t, encoder_hidden_states=context).sample.float()
        yield t, latents
        # Clean latents say nothing of the noise in them: for a U-Net that predicts these they count as nearly clean.
        level = torch.minimum(alpha, pipeline.alpha(0)) if kind == "sample" else alpha
        clean, noise = _split(latents, output, level, kind)
        if kind == "sample":
            # Where there is hardly any noise, what is left over is divided by next to nothing; noise has deviation 1.
            noise = noise / noise.std((2, 3), keepdim=True).clamp_min(1)
        alpha = pipeline.alpha(following)
        latents = alpha.sqrt() * clean + (1 - alpha).sqrt() * noise
    yield levels[-1], latents


def invert(
    pipeline: Pipeline,
    latents: Tensor,
    context: Tensor,
    keep: Sequence[int] | None = None,
    steps: int = 50,
    first: int = -1,
) -> dict[int, Tensor]:
    """Latents at chosen timesteps of DDIM inversion; see :func:`inversion_steps` for the other arguments.

    Args:
        pipeline: Whose U-Net predicts the noise, the velocity or the clean latents.
        latents: ``(B, 4, h, w)`` clean latents.
        context: ``(L, D)``, ``(1, L, D)`` or ``(B, L, D)``.
        keep: Timesteps among ``timesteps(pipeline, steps)`` and ``first``; None keeps the last, the noise, alone.
        steps: Number of steps of the whole way; no step past the last one kept is computed.
        first: Timestep that stands for the clean latents.

    Returns:
        ``(B, 4, h, w)`` float32 by timestep.

    Raises:
        InputError: If a timestep is asked for that the walk does not pass.
    """
    passed = [first, *timesteps(pipeline, steps)]
    wanted = passed[-1:] if keep is None else list(keep)
    unknown = sorted(set(wanted) - set(passed))
    if unknown or not wanted:
        raise InputError(f"found timesteps {unknown}, expected among {passed[0]}, {passed[1]}, {passed[2:3]} ...")
    kept: dict[int, Tensor] = {}
    for t, state in inversion_steps(pipeline, latents, context, steps, first):
        if t in wanted:
            kept[t] = state
        if len(kept) == len(set(wanted)):
            break
    return {t: kept[t] for t in wanted}


def timesteps(pipeline: Pipeline, steps: int = 50) -> list[int]:
    """Timesteps that inversion passes after the clean latents: 0, 20, ..., 980 for 50 steps. Raises InputError."""
    total = int(pipeline.scheduler.config.num_train_timesteps)
    if not 1 <= steps <= total:
        raise InputError(f"found {steps} steps, expected 1 to {total}")
    return list(range(0, total, total // steps))[:steps]


def _split(latents: Tensor, output: Tensor, alpha: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    """Clean latents and noise from a prediction of either (``sample``, ``epsilon``) or of the velocity."""
    if kind == "sample":
        return output, (latents - alpha.sqrt() * output) / (1 - alpha).sqrt()
    if kind == "v_prediction":
        output = alpha.sqrt() * output + (1 - alpha).sqrt() * latents
    return (latents - (1 - alpha).sqrt() * output) / alpha.sqrt(), output
