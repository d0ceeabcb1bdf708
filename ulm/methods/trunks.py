"""What the trainings of perceptual networks share: a VGG trunk with a head that only the training needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ulm.errors import InputError
from ulm.methods.training import Trainable, cosine, descend
from ulm.networks import perceptual
from ulm.networks.perceptual import VGG


class TrunkTraining(Trainable):
    """Base of the trainings whose result is a VGG trunk, written without batch normalisation, ready for a loss.

    Args:
        image_size: Side of the images.
        depth: ``vgg16`` or ``vgg19``.
        width: Channels of the first stage; 64 as published.
        learning_rate: Of Adam, with a short warm-up and a half cosine to zero.
        batch_size: Images in a step.
        steps: Steps of training.
        seed: Of everything random.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N``.

    Attributes:
        preprocessing: What the trunk does to its images first (see :class:`ulm.networks.perceptual.VGG`).

    Raises:
        InputError: For a bad value.
    """

    detector_parts = ("trunk",)
    saved_parts = ("trunk",)
    preprocessing: str

    def __init__(
        self,
        image_size: int = 128,
        depth: str = "vgg16",
        width: int = 64,
        learning_rate: float = 2e-3,
        batch_size: int = 64,
        steps: int = 200_000,
        seed: int = 0,
        device: str = "auto",
    ):
        for name in self.parameter_names():
            setattr(self, name, locals()[name])
        self._check_common()

    def _check_common(self) -> None:
        super()._check_common()
        if self.depth not in perceptual.DEPTHS:
            raise InputError(f"found depth={self.depth!r}, expected one of {', '.join(perceptual.DEPTHS)}")
        if self.width < 1 or self.image_size < 32:
            found = f"width={self.width}, image_size={self.image_size}"
            raise InputError(f"found {found}; expected at least 1 and at least 32")

    def _trained(self) -> VGG:
        """The trunk in training, with batch normalisation."""
        raise TypeError(f"{type(self).__name__} has no trunk")

    def _optimisers(self) -> dict[str, torch.optim.Optimizer]:
        return {"model": torch.optim.Adam(self.networks.parameters(), lr=self.learning_rate)}

    def _descend(self, loss: Tensor, step: int) -> None:
        descend(self.optimisers["model"], loss, self.learning_rate * cosine(step, self.steps))

    def trunk(self) -> VGG:
        """The trunk alone, normalisation folded in, in evaluation mode. Raises InputError before ``fit``."""
        self._ready()
        return self.networks["trunk"] if "trunk" in self.networks else self._trained().fold()

    def save_pretrained(
        self, folder: Path | str, detector_only: bool = False, card: dict[str, Any] | None = None
    ) -> None:
        """Write the folded trunk and what else ``saved_parts`` names; see the base class."""
        trained = self.networks
        beside = {name: trained[name] for name in self.saved_parts if name != "trunk"}
        self.networks = nn.ModuleDict({"trunk": self.trunk(), **beside})
        try:
            super().save_pretrained(folder, detector_only, card)
        finally:
            self.networks = trained

    def _header(self) -> dict[str, str]:
        # By this the file alone tells perceptual.load how to build the trunk.
        return {"depth": self.depth, "width": str(self.width), "preprocessing": self.preprocessing}

    def _load_weights(self, folder: Path, names: list[str]) -> None:
        self.networks = nn.ModuleDict({"trunk": perceptual.load(str(folder / "model.safetensors"))})
