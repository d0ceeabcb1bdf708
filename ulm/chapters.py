"""What the chapters share: their data, their models and where their numbers go. Nothing here is a method."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from ulm import datasets, methods, runs, zoo
from ulm.datasets import CachedDataset, Dataset
from ulm.datasets.real import SOURCES
from ulm.methods import Detector


@dataclass(frozen=True)
class Data:
    """One data set of a chapter in the sizes of a profile, drawn or read once and then cached.

    Attributes:
        spec: What :func:`ulm.datasets.load` takes.
        name: What a table's provenance calls it: the paper's data set, or the stand-in.
        profile: Its name, see :data:`ulm.runs.PROFILES`.
        sizes: Which of its entries sets the sizes, such as ``diffusion``; empty: the profile itself.
    """

    spec: str
    name: str
    profile: str
    sizes: str = ""

    @cached_property
    def train(self) -> CachedDataset:
        """Images to discover landmarks on; their labels are not looked at."""
        return self._load("train", "data")

    @cached_property
    def fit(self) -> CachedDataset:
        """Labelled images of ``train`` that regressors may be fitted on, see :func:`ulm.datasets.labelled`."""
        settings = self._settings
        return self._kept(datasets.labelled(self.spec, settings["size"], settings["data"], settings["fit"]))

    @cached_property
    def pool(self) -> CachedDataset:
        """Labelled images of ``train`` where a table asks how many are enough: more than in ``fit``."""
        return self._load("train", "pool")

    @cached_property
    def test(self) -> CachedDataset:
        """Labelled images that nothing is fitted on."""
        return self._load("test", "test")

    @property
    def five(self) -> dict[str, str | None]:
        """Options of :func:`ulm.evaluation.evaluate_detector`: MAFL's five points, divided by the pupils' distance.

        Where the data set has no such subset all points are taken, and where it is measured by the box, as turned heads
        are, so are they.
        """
        info = self._wanted("test", "test").info
        subset = "mafl-5" if "mafl-5" in dict(info.subsets) else None
        return {"subset": subset, "normaliser": "pupils" if subset and info.normaliser != "box" else None}

    def _load(self, split: str, limit: str) -> CachedDataset:
        return self._kept(self._wanted(split, limit))

    def _kept(self, images: Dataset) -> CachedDataset:
        # Bars tell of time, and the outputs of smoke runs are compared.
        return datasets.cached(images, progress=self.profile != "smoke")

    def _wanted(self, split: str, limit: str) -> Dataset:
        """The images, not drawn or read yet."""
        return datasets.load(self.spec, split, self._settings["size"], self._settings[limit])

    @property
    def _settings(self) -> Mapping[str, Any]:
        settings = runs.profile(self.profile)
        return settings[self.sizes] if self.sizes else settings


def data(dataset: str, data_root: str, paper: str, standin: str, profile: str, sizes: str = "") -> Data:
    """The data set of a chapter.

    Args:
        dataset: The notebook's parameter: a specification, or ``auto``: the paper's own data set, where the folder
            ``data_root/PAPER`` holds it (in its official layout, or as ``keypoints.json`` and ``images/``), else the
            stand-in.
        data_root: The notebook's parameter: a folder of data sets, or empty.
        paper: The paper's data set, such as ``mafl``.
        standin: Such as ``procedural:faces``.
        profile: Name of the profile.
        sizes: See :class:`Data`.
    """
    if dataset != "auto":
        return Data(dataset, dataset, profile, sizes)
    own = Path(data_root) / paper
    if data_root and (own / "keypoints.json").is_file():
        return Data(f"coco:{own}", paper, profile, sizes)
    if data_root and own.is_dir() and paper in SOURCES:
        return Data(f"{paper}:{own}", paper, profile, sizes)
    return Data(standin, standin, profile, sizes)


def detector(
    name: str,
    profile: str,
    device: str = "auto",
    seed: int = 0,
    retrain: bool = False,
    models: str = "",
    backbone: str = "",
) -> Detector | None:
    """A model by its name in the zoo; None where there is none as yet.

    Args:
        name: Such as ``imm-faces-k10``.
        profile: Name of the profile; it decides how long ``retrain`` trains.
        device: See :func:`ulm.runs.pick_device`.
        seed: Of ``retrain``.
        retrain: Train from scratch as the zoo's model was. An interrupted training goes on.
        models: A folder of further models, named like the zoo's; they go before those of the zoo.
        backbone: The diffusion model of ``retrain``, of methods that have one; empty: what the profile says.
    """
    if models and (Path(models) / name / "config.json").is_file():
        return methods.load(Path(models) / name, device)
    if retrain:
        from ulm.zoo import recipes

        if name in recipes.RECIPES:
            takes = "backbone" in methods.METHODS[recipes.RECIPES[name].method].parameter_names()
            changes = {"backbone": backbone} if backbone and takes else {}
            other = "".join(f"-{Path(value).name}" for value in changes.values())
            folder = Path("_build") / "retrained" / profile / f"{name}-seed{seed}{other}"
            bar = profile != "smoke"
            return recipes.train(name, profile, device=device, seed=seed, progress=bar, out=folder, changes=changes)
    return methods.load(name, device) if name in zoo.names() else None


class Record:
    """Writes a chapter's numbers and pictures, each with its provenance, where ``ulm status`` finds them.

    Args:
        chapter: Name of the notebook.
        profile: Name of the profile.
        device: Where it was measured.
    """

    def __init__(self, chapter: str, profile: str, device: Any):
        self.folder = runs.numbers_folder()
        self.path, self.profile, self.device = self.folder / f"{chapter}.json", profile, device

    def number(
        self,
        id: str,
        row: str,
        column: str,
        value: float,
        facts: Mapping[str, Any],
        std: float | None = None,
        unit: str = "%",
    ) -> None:
        """Keep one cell of a table; ``facts`` are the provenance, such as ``Report.facts()``."""
        extra = {} if std is None else {"std": round(std, 4)}
        made = runs.provenance(self.device, **{**facts, "profile": self.profile})
        runs.record([runs.measurement(id, row, column, value, made, unit, **extra)], self.path)

    def picture(self, id: str, figure: Figure, facts: Mapping[str, Any], row: str = "picture") -> Figure:
        """Keep a figure as PNG beside the numbers, and hand it back to be shown."""
        part = "" if row == "picture" else f"-{row.split()[-1]}"
        name = f"{id.replace('/', '-')}{part}.png"
        self.folder.mkdir(parents=True, exist_ok=True)
        figure.savefig(self.folder / name, bbox_inches="tight", metadata={"Software": None})
        made = runs.provenance(self.device, **{**facts, "profile": self.profile})
        entry = runs.measurement(id, row, "picture", "", made, "", picture=name)
        runs.record([{key: value for key, value in entry.items() if key != "value"}], self.path)
        return figure
