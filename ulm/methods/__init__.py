"""Methods: one file each, each a :class:`ulm.methods.base.Detector`, and what they are trained with."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import TypeVar

from ulm import zoo
from ulm.errors import InputError
from ulm.methods.base import Detector
from ulm.methods.colourisation import Colourisation
from ulm.methods.imm import IMM
from ulm.methods.inter_intra import InterIntra
from ulm.methods.pose_core import PoseCore
from ulm.methods.recognition import Recognition
from ulm.methods.stable_keypoints import StableKeypoints
from ulm.methods.training import Trainable


class _Registry(Mapping[str, type[Trainable]]):
    """Classes by name, imported when they are asked for: the diffusion libraries take seconds."""

    def __init__(self, places: dict[str, str]):
        self.places = places

    def __getitem__(self, name: str) -> type[Trainable]:
        module, cls = self.places[name].split(":")
        found: type[Trainable] = getattr(import_module(f"ulm.methods.{module}"), cls)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)


METHODS = _Registry(
    {
        "imm": "imm:IMM",
        "inter-intra": "inter_intra:InterIntra",
        "pose-core": "pose_core:PoseCore",
        "colourisation": "colourisation:Colourisation",
        "recognition": "recognition:Recognition",
        "pocket": "pocket:Pocket",
        "stable-keypoints": "stable_keypoints:StableKeypoints",
        "zero-shot": "zero_shot:ZeroShot",
        "d-uld-bootstrap": "duld:Bootstrap",
        "d-uld": "duld:DULD",
        "mallis-d": "duld:MallisD",
        "d-uld-pp": "duld:PoseProxy",
        "d-uld++": "duld:DULDPlusPlus",
    }
)

T = TypeVar("T", bound=Trainable)


def load(source: Path | str, device: str = "auto", kind: type[T] = Detector) -> T:  # type: ignore[assignment]
    """Load a model of any method from a folder or by its name in the zoo.

    Args:
        source: Folder written by ``save_pretrained``, or a name of ``ulm zoo list``.
        device: See :func:`ulm.runs.pick_device`.
        kind: What it must be; any detector by default.

    Raises:
        InputError: If there is no such model, it is of another kind, its hash is wrong, or it holds a pickle.
    """
    folder = Path(source) if Path(source).is_dir() else zoo.path(str(source))
    zoo.verify(folder)
    config = json.loads((folder / "config.json").read_text())
    method = METHODS.get(config.get("method"))
    if method is None or not issubclass(method, kind):
        known = ", ".join(name for name, cls in METHODS.items() if issubclass(cls, kind))
        raise InputError(f"{folder}: found a model of method {config.get('method')!r}, expected {known}")
    model = method(**(method.check_names(config["parameters"]) | {"device": device}))
    model._load_weights(folder, config["networks"])
    model.history_ = config.get("history", [])
    return model


__all__ = [
    "IMM",
    "METHODS",
    "Colourisation",
    "Detector",
    "InterIntra",
    "PoseCore",
    "Recognition",
    "StableKeypoints",
    "Trainable",
    "load",
]
