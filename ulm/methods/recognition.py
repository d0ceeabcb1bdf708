"""A perceptual network that learned from labels: telling what a picture shows (Simonyan and Zisserman, ICLR 2015).

IMM's rows *sup* compare pictures by a VGG that was trained to name the objects of ImageNet. Its weights are one call
away for whoever has a network (``timm/vgg16.tv_in1k``); here a smaller one learns from drawn pictures and their kinds:
the scene, and the species, digit or category where the scene has some. No landmark is looked at.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ulm.datasets.base import Dataset
from ulm.datasets.cache import CachedDataset, cached
from ulm.errors import InputError
from ulm.geometry import WarpScale
from ulm.methods import views
from ulm.methods.training import read_safetensors
from ulm.methods.trunks import TrunkTraining
from ulm.networks import perceptual
from ulm.networks.perceptual import VGG
from ulm.runs import autocast, generator

# The annotations that divide a scene into kinds, where it has them.
CATEGORIES = ("species", "digit", "category")
AUGMENTATION = WarpScale(rotation=10, scale=0.15, translation=0.05)


def kinds(dataset: Dataset) -> list[str]:
    """What each picture shows: the name of its data set, and its species, digit or category if that is annotated.

    Args:
        dataset: Any data set, or a :class:`ulm.methods.pocket.Gallery` of several.
    """
    named: list[str] = []
    for part in getattr(dataset, "parts", [dataset]):
        data = cached(part)
        columns = [column for key in CATEGORIES if (column := data.column(key)) is not None]
        scene = data.info.name.removeprefix("procedural:")
        named += (
            [" ".join([scene, *map(str, values)]) for values in zip(*columns, strict=True)]
            if columns
            else [scene] * len(data)
        )
    return named


class Recognition(TrunkTraining):
    """Train a VGG trunk to name what pictures show; the trunk is kept for perceptual losses, the head beside it.

    Hyperparameters are those of :class:`ulm.methods.trunks.TrunkTraining`.

    Attributes:
        kinds_: Names of the classes, sorted, after ``fit`` or ``from_pretrained``.
    """

    name = "recognition"
    detector_parts = ("trunk", "head")
    saved_parts = ("trunk", "head")
    preprocessing = "torchvision"

    def _check_common(self) -> None:
        super()._check_common()
        self.kinds_: list[str] = []

    def _build(self) -> nn.ModuleDict:
        if not self.kinds_:
            raise InputError("this Recognition knows no kinds yet; call fit or from_pretrained first")
        trunk = VGG(self.depth, self.width, self.preprocessing, norm=True)
        return nn.ModuleDict({"recogniser": trunk, "head": nn.Linear(trunk.channels[-1], len(self.kinds_))})

    def _trained(self) -> VGG:
        trunk: VGG = self.networks["recogniser"]  # type: ignore[assignment]
        return trunk

    def _check_data(self, dataset: Dataset) -> CachedDataset:
        from ulm.methods.pocket import Gallery

        # A gallery keeps its parts in the cache, and has the methods that training calls.
        data = dataset if isinstance(dataset, Gallery) else super()._check_data(dataset)
        named = kinds(data)
        self.kinds_ = sorted(set(named))
        if len(self.kinds_) < 2:
            raise InputError(
                f"{data.info.name}: found pictures of one kind ({self.kinds_[0]}), expected two or more; give several "
                f"data sets in a Gallery, or one whose items have {', '.join(CATEGORIES[:-1])} or {CATEGORIES[-1]}"
            )
        self._answers = torch.tensor([self.kinds_.index(name) for name in named])
        return data  # type: ignore[return-value]

    def _batch(self, data: CachedDataset, step: int) -> tuple[Tensor, Tensor | None]:
        indices, _ = self._indices(data, step)
        return self._prepare(data.images_uint8(indices)), self._answers[indices].to(self.torch_device)

    def _logits(self, images: Tensor) -> Tensor:
        trunk = self.networks["trunk"] if "trunk" in self.networks else self._trained()
        return self.networks["head"](trunk(images)[-1].float().mean((2, 3)))

    def _train_step(self, images: Tensor, pairs: Tensor | None, step: int) -> dict[str, Tensor]:
        """One step on ``(B, 3, S, S)`` images in [0, 1] and the numbers of their kinds ``(B,)``."""
        assert pairs is not None
        view = views.draw_windows(len(images), AUGMENTATION, generator(self.torch_device, self.seed, 3, step))
        shown = views.sample(view, images, self.image_size)
        with autocast(self.torch_device):
            logits = self._logits(shown)
        loss = F.cross_entropy(logits.float(), pairs)
        self._descend(loss, step)
        return {"kind": loss.detach()}

    @torch.no_grad()
    def predict(self, images: Tensor) -> Tensor:
        """The kind of each picture: ``(B, 3, H, W)``, uint8 or in [0, 1], to int64 ``(B,)``, places in ``kinds_``."""
        self._ready()
        return self._logits(self._prepare(images)).argmax(1).cpu()

    def _header(self) -> dict[str, str]:
        return {**super()._header(), "kinds": json.dumps(self.kinds_)}

    def _load_weights(self, folder: Path, names: list[str]) -> None:
        weights = folder / "model.safetensors"
        tensors, header = read_safetensors(weights)
        self.kinds_ = json.loads(header["kinds"])
        head = nn.Linear(tensors["head.weight"].shape[1], len(self.kinds_))
        head.load_state_dict({name: tensors[f"head.{name}"] for name in ("weight", "bias")})
        self.networks = nn.ModuleDict({"trunk": perceptual.load(str(weights)), "head": head})
        self.networks.to(self.torch_device)
