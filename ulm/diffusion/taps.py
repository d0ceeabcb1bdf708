"""What is read off a U-Net while it runs: cross-attention maps, and features of the decoder's residual blocks.

Taps are hooks that live for one call; the U-Net's own attention, fused, and its output stay as they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ulm.diffusion.pipelines import Pipeline
from ulm.errors import InputError

LAYERS = (7, 8, 9, 10)  # the taps of StableKeypoints in Stable Diffusion 1.5


class _Enough(Exception):
    """Ends a U-Net's forward pass once all that is tapped is there."""


def cross_attentions(unet: UNet2DConditionModel) -> list[tuple[str, nn.Module]]:
    """Names and modules of all cross-attentions in the order in which they run, sixteen in Stable Diffusion 1.5."""
    blocks = [(f"down_blocks.{i}", block) for i, block in enumerate(unet.down_blocks)]
    blocks += [("mid_block", unet.mid_block)]
    blocks += [(f"up_blocks.{i}", block) for i, block in enumerate(unet.up_blocks)]
    found = []
    for name, block in blocks:
        for a, transformer in enumerate(getattr(block, "attentions", None) or []):
            for b, layer in enumerate(transformer.transformer_blocks):
                found.append((f"{name}.attentions.{a}.transformer_blocks.{b}.attn2", layer.attn2))
    return found


def decoder_resnets(unet: UNet2DConditionModel) -> list[tuple[str, nn.Module]]:
    """Names and modules of the decoder's residual blocks in the order in which they run, twelve in SD 1.5."""
    return [
        (f"up_blocks.{i}.resnets.{j}", resnet)
        for i, block in enumerate(unet.up_blocks)
        for j, resnet in enumerate(block.resnets)
    ]


@dataclass
class Taps:
    """What hooks have caught so far, by index of the layer: ``queries`` and ``keys``, ``(B, heads, P or N, d)``."""

    queries: dict[int, Tensor] = field(default_factory=dict)
    keys: dict[int, Tensor] = field(default_factory=dict)
    features: dict[int, Tensor] = field(default_factory=dict)


@contextmanager
def attention_taps(
    unet: UNet2DConditionModel, layers: Sequence[int] = LAYERS, early_exit: bool = False
) -> Iterator[Taps]:
    """Catch queries and keys of cross-attentions while the U-Net runs inside the ``with``.

    Args:
        unet: Any U-Net of Stable Diffusion's layout.
        layers: Indices into :func:`cross_attentions`, in any order.
        early_exit: End the U-Net's forward pass as soon as the last one is caught; the ``with`` ends there too.

    Yields:
        The ``Taps`` that fill up.

    Raises:
        InputError: For an index that does not exist.
    """
    taps, modules = Taps(), _pick(cross_attentions(unet), layers, "cross-attention")

    def catch(store: dict[int, Tensor], layer: int, heads: int) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            store[layer] = output.unflatten(-1, (heads, -1)).transpose(1, 2)
            if early_exit and len(taps.queries) == len(taps.keys) == len(modules):
                raise _Enough

        return hook

    handles = []
    for layer, module in modules.items():
        handles.append(module.to_q.register_forward_hook(catch(taps.queries, layer, module.heads)))
        handles.append(module.to_k.register_forward_hook(catch(taps.keys, layer, module.heads)))
    with _removed(handles):
        yield taps


@contextmanager
def resnet_taps(
    unet: UNet2DConditionModel, layers: Sequence[int] = tuple(range(12)), early_exit: bool = False
) -> Iterator[Taps]:
    """Catch the decoder resnets' residual branches, as :func:`attention_taps` does queries; see ``resnet_features``."""
    taps, modules = Taps(), _pick(decoder_resnets(unet), layers, "decoder resnet")

    def catch(layer: int) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            taps.features[layer] = output
            if early_exit and len(taps.features) == len(modules):
                raise _Enough

        return hook

    # conv2 is the last of the residual branch: what comes after is the addition of the input.
    with _removed([module.conv2.register_forward_hook(catch(layer)) for layer, module in modules.items()]):
        yield taps


def attention_maps(
    pipeline: Pipeline,
    latents: Tensor,
    t: int | Tensor,
    tokens: Tensor,
    layers: Sequence[int] = LAYERS,
    size: int = 128,
    early_exit: bool = True,
    chunk: int = 2048,
    average: bool = True,
) -> Tensor:
    """Where each token is attended to (StableKeypoints, Eqs. 2 and 3, Section 3.3).

    For each layer and head, ``softmax_n(Up(Q) K^T / sqrt(d))``, then the mean over heads and layers; ``Up`` is bicubic
    upsampling of the queries to ``size`` x ``size``. Upsampling is linear and acts on positions, the product on
    channels, so ``Up(Q) K^T = Up(Q K^T)``: scores are taken on the layer's own grid and upsampled, at a fifth of the
    arithmetic.

    Args:
        pipeline: Whose U-Net runs, with all its cross-attentions conditioned on ``tokens``.
        latents: ``(B, 4, h, w)``, noise added already (:meth:`Pipeline.noisy`).
        t: Timestep that the U-Net is told, or ``(B,)`` of them.
        tokens: ``(N, D)`` for all images, or ``(B, N, D)``; gradients flow into them by the keys of the tapped layers
            and by keys and values of every cross-attention before.
        layers: Indices of cross-attentions in the order in which they run.
        size: Edge of the maps.
        early_exit: Stop the U-Net after the last tap.
        chunk: Pixels at a time, which bounds the memory; their scores are computed again in the backward pass.
        average: Mean over layers; otherwise the maps of each.

    Returns:
        ``(B, N, size, size)`` float32, whose sum over N is 1 at each pixel; ``(B, len(layers), N, size, size)`` without
        ``average``.

    Raises:
        InputError: For an index that does not exist, or tokens of another shape.
    """
    tokens = _batch(tokens, len(latents), pipeline.token_dim)
    with attention_taps(pipeline.unet, layers, early_exit) as taps:
        _forward(pipeline, latents, t, tokens)
    return maps([(taps.queries[i], taps.keys[i]) for i in layers], latents.shape[-2:], size, chunk, average)


def maps(
    pairs: Sequence[tuple[Tensor, Tensor]],
    latent: Sequence[int],
    size: int = 128,
    chunk: int = 2048,
    average: bool = True,
) -> Tensor:
    """The maps of :func:`attention_maps` from queries ``(B, heads, P, d)`` and keys ``(B, heads, N, d)`` of each layer.

    ``latent`` is height and width of the latents, by which the layer's own grid of P positions is known.
    """
    with _float32(pairs[0][0].device):
        scores = [_scores(queries, keys, latent) for queries, keys in pairs]
        return _maps(scores, size, max(1, chunk // size), average)


@torch.no_grad()
def resnet_features(
    pipeline: Pipeline,
    latents: Tensor,
    t: int | Tensor,
    context: Tensor,
    layers: Sequence[int] = tuple(range(12)),
    early_exit: bool = True,
) -> list[Tensor]:
    """Features of decoder residual blocks before the residual addition, as Diffusion Hyperfeatures take them.

    Args:
        pipeline: Whose U-Net runs.
        latents: ``(B, 4, h, w)``; the one-step variant hands in clean ones and ``t = -1``.
        t: Timestep that the U-Net is told, or ``(B,)`` of them.
        context: ``(L, D)`` or ``(B, L, D)``, such as ``pipeline.embed("")``.
        layers: Indices of decoder resnets, 0 to 11, in the order in which they run.
        early_exit: Stop the U-Net after the last tap.

    Returns:
        For each layer ``(B, C, h, w)`` in the U-Net's own type, without a gradient: the output of the block's second
        convolution.

    Raises:
        InputError: For an index that does not exist, or a context of another shape.
    """
    context = context[0] if context.ndim == 3 and len(context) == 1 else context
    context = _batch(context, len(latents), pipeline.token_dim)
    with resnet_taps(pipeline.unet, layers, early_exit) as taps:
        _forward(pipeline, latents, t, context)
    return [taps.features[layer] for layer in layers]


# --- attention maps ---------------------------------------------------------------------------------------------------


def _scores(queries: Tensor, keys: Tensor, latent: Sequence[int]) -> Tensor:
    """``(B, heads, P, d)`` and ``(B, heads, N, d)`` to scores on the layer's own grid, ``(B, heads, h, w, N)``."""
    scores = queries.float() @ keys.float().transpose(-1, -2) / math.sqrt(queries.shape[-1])
    return scores.unflatten(2, _grid(queries.shape[2], latent))


def _maps(scores: list[Tensor], size: int, rows: int, average: bool) -> Tensor:
    """Upsample, softmax over tokens, mean over heads (and layers), some rows of pixels at a time."""
    device = scores[0].device
    across = [_bicubic(s.shape[3], size, device) for s in scores]
    down = [_bicubic(s.shape[2], size, device).split(rows) for s in scores]

    def part(matrices: tuple[Tensor, ...], *scores: Tensor) -> Tensor:
        maps = [_part(s, m, a) for s, m, a in zip(scores, matrices, across, strict=True)]
        return torch.stack(maps).mean(0) if average else torch.stack(maps, 1)

    parts = [
        checkpoint(part, matrices, *scores, use_reentrant=False, preserve_rng_state=False)
        for matrices in zip(*down, strict=True)
    ]
    return torch.cat(parts, dim=-3).movedim(-1, -3)


def _part(scores: Tensor, down: Tensor, across: Tensor) -> Tensor:
    """``(B, heads, h, w, N)`` scores to ``(B, R, S, N)`` probabilities, by an (R, h) and an (S, w) matrix."""
    scores = (down @ scores.flatten(3)).unflatten(-1, scores.shape[3:])
    return (across @ scores).softmax(dim=-1).mean(dim=1)


def _bicubic(length: int, size: int, device: torch.device) -> Tensor:
    """The ``(size, length)`` matrix of bicubic interpolation along one axis (``align_corners=False``)."""
    eye = torch.eye(length, device=device)[None, None]
    # Along the other axis the length stays, and interpolation to the same length changes nothing.
    return F.interpolate(eye, size=(size, length), mode="bicubic", align_corners=False)[0, 0]


def _grid(positions: int, latent: Sequence[int]) -> tuple[int, int]:
    """The grid of a layer with that many positions: the latents' own, halved (rounding up) as often as need be."""
    height, width = latent
    while height * width > positions:
        height, width = (height + 1) // 2, (width + 1) // 2
    return height, width


def _float32(device: torch.device) -> AbstractContextManager[object]:
    """Autocast, where a caller has switched it on, is off inside the ``with``."""
    known = torch.amp.is_autocast_available(device.type)
    return torch.autocast(device.type, enabled=False) if known else nullcontext()


# --- running the U-Net ------------------------------------------------------------------------------------------------


def _forward(pipeline: Pipeline, latents: Tensor, t: int | Tensor, context: Tensor) -> Tensor:
    kind = pipeline.dtype
    t = t.to(latents.device) if isinstance(t, Tensor) else t
    return pipeline.unet(latents.to(kind), t, encoder_hidden_states=context.to(kind)).sample


def _batch(tokens: Tensor, batch: int, width: int) -> Tensor:
    if tokens.shape[-1] != width or tokens.ndim not in (2, 3) or (tokens.ndim == 3 and len(tokens) != batch):
        raise InputError(
            f"found tokens of shape {tuple(tokens.shape)}, expected (N, {width}) or ({batch}, N, {width}) for this "
            f"pipeline and batch"
        )
    return tokens.expand(batch, -1, -1)


def _pick(found: list[tuple[str, nn.Module]], layers: Sequence[int], kind: str) -> dict[int, nn.Module]:
    if not layers or any(layer not in range(len(found)) for layer in layers):
        raise InputError(f"found {kind} layers {list(layers)}, expected numbers from 0 to {len(found) - 1}")
    return {layer: found[layer][1] for layer in layers}


@contextmanager
def _removed(handles: list[torch.utils.hooks.RemovableHandle]) -> Iterator[None]:
    """Take the hooks away at the end, which an early exit may have brought about."""
    try:
        with suppress(_Enough):
            yield
    finally:
        for handle in handles:
            handle.remove()
