"""What every landmark detector can do: scikit-learn's manners, diffusers' files."""

from __future__ import annotations

import torch
from torch import Tensor

from ulm.errors import InputError
from ulm.methods.training import Trainable


class Detector(Trainable):
    """Base of all landmark detectors; a sub-class also defines :meth:`_landmarks`."""

    name = "detector"
    counts = ("n_landmarks", "batch_size", "steps")
    n_landmarks: int

    def _landmarks(self, images: Tensor) -> Tensor:
        """``(B, 3, S, S)`` in [0, 1] to ``(B, K, 2)`` pixels of S x S images."""
        raise TypeError(f"{type(self).__name__} detects nothing")

    @torch.no_grad()
    def predict(self, images: Tensor, batch_size: int = 64) -> Tensor:
        """Detect landmarks.

        Args:
            images: ``(B, 3, H, W)`` float RGB in [0, 1] (or uint8), any size; resized to ``image_size`` inside.
            batch_size: Images at a time.

        Returns:
            ``(B, K, 2)`` float32 on the CPU, (x, y), pixels of the images handed in.

        Raises:
            InputError: Before ``fit``, or if ``images`` are not of that shape.
        """
        self._ready()
        if images.ndim != 4 or images.shape[1] != 3:
            raise InputError(f"found images of shape {tuple(images.shape)}, expected (B, 3, H, W)")
        self.networks.eval()
        height, width = images.shape[-2:]
        found = [self._landmarks(self._prepare(part)).float().cpu() for part in images.split(batch_size)]
        if not found:
            return torch.empty(0, self.n_landmarks, 2)
        return torch.cat(found) * torch.tensor([width / self.image_size, height / self.image_size])


class Redrawer(Detector):
    """Base of detectors that learn by drawing; a sub-class also defines :meth:`_generate`, from what ``pose`` finds."""

    def _generate(self, source: Tensor, code: Tensor) -> Tensor:
        """Draw ``(B, 3, S, S)`` from the look of such images and what the network ``pose`` found in others."""
        raise TypeError(f"{type(self).__name__} draws nothing")

    @torch.no_grad()
    def reconstruct(self, source: Tensor, target: Tensor) -> Tensor:
        """Redraw ``target`` from the appearance of ``source`` and the landmarks of ``target``.

        Args:
            source: ``(B, 3, H, W)`` in [0, 1].
            target: The same; with another subject than the source's, this is what Inter-Intra calls I_a (equation 3).

        Returns:
            ``(B, 3, S, S)`` in [0, 1], S = ``image_size``, on the CPU.

        Raises:
            InputError: If the model holds its detector only.
        """
        self._ready()
        if "generator" not in self.networks:
            raise InputError("this model holds its detector only; train one with `ulm fit` to have a generator")
        self.networks.eval()
        code = self.networks["pose"](self._prepare(target))
        return self._generate(self._prepare(source), code).clamp(0, 1).cpu()
