"""Changes of a sample that its annotation follows."""

from __future__ import annotations

import torch

from ulm.datasets.base import Info, Sample
from ulm.errors import InputError


def flip(sample: Sample, info: Info) -> Sample:
    """Mirror a sample from left to right.

    What was the left of a pair (left eye, left wrist) is the right one afterwards, so the landmarks of
    ``info.flip_pairs`` change places besides being mirrored, and the names stay true. Twice is the identity.

    Args:
        sample: An item of a data set (see :class:`ulm.datasets.base.Dataset`), left as it is: ``image``
            ``(3, H, W)`` and any of ``landmarks`` ``(L, 2)`` in pixels, ``visible`` ``(L,)``, ``box`` ``(4,)`` as x0,
            y0, x1, y1, ``mask`` ``(H, W)`` and ``yaw`` in degrees.
        info: That data set's ``info``.

    Returns:
        A new sample: those keys mirrored, all others as they were. Missing landmarks stay NaN.

    Raises:
        InputError: ``info.flip_pairs`` names a landmark that the sample does not have, or one of them twice.
    """
    width = sample["image"].shape[-1]
    mirrored = {key: sample[key].flip(-1) for key in ("image", "mask") if key in sample}
    if "landmarks" in sample:
        order = _partners(len(sample["landmarks"]), info)
        x, y = sample["landmarks"].unbind(-1)
        mirrored["landmarks"] = torch.stack([width - x, y], -1)[order]
        if "visible" in sample:
            mirrored["visible"] = sample["visible"][order]
    if "box" in sample:
        x0, y0, x1, y1 = sample["box"]
        mirrored["box"] = torch.stack([width - x1, y0, width - x0, y1])
    if "yaw" in sample:
        mirrored["yaw"] = -sample["yaw"]
    return {**sample, **mirrored}


def _partners(count: int, info: Info) -> list[int]:
    """Which landmark takes the place of each of ``count`` when left and right change places."""
    named = [index for pair in info.flip_pairs for index in pair]
    if len(set(named)) < len(named) or not all(0 <= index < count for index in named):
        raise InputError(
            f"found flip pairs {info.flip_pairs} for {count} landmarks of {info.name}, expected indices below {count}, "
            "each in one pair at most; mend flip_pairs"
        )
    order = list(range(count))
    for left, right in info.flip_pairs:
        order[left], order[right] = right, left
    return order
