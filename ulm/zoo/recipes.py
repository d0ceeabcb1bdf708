"""How each model of the zoo is made: method, data and what differs from the profile."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ulm import datasets, evaluation, methods, runs, zoo
from ulm.errors import InputError
from ulm.methods import Detector, Trainable
from ulm.methods.training import Monitor


@dataclass(frozen=True)
class Recipe:
    """One model of the zoo.

    Attributes:
        method: A key of ``ulm.methods.METHODS``.
        data: The specification of the training data; its split ``train`` is used, as many images as the profile says.
        parameters: Hyperparameters that differ from the profile's, such as ``n_landmarks``.
        start: The model that training starts from (fine-tuning).
        share: Training steps as a share of the profile's.
        detector_only: Whether the generator is left out of what ships.
    """

    method: str
    data: str
    parameters: dict[str, Any] = field(default_factory=dict)
    start: str | None = None
    share: float = 1.0
    detector_only: bool = True


def _imm(k: int, data: str = "procedural:faces", **changes: Any) -> Recipe:
    kept = {name: changes.pop(name) for name in ("start", "share", "detector_only") if name in changes}
    return Recipe("imm", data, {"n_landmarks": k, **changes}, **kept)


RECIPES: dict[str, Recipe] = {
    "vgg16-colour": Recipe("colourisation", "procedural:faces"),
    # IMM, Table 1: trained on faces like CelebA's, fine-tuned on faces of all poses like AFLW's.
    "imm-faces-k10": _imm(10, detector_only=False),
    "imm-faces-k30": _imm(30, share=0.5),
    "imm-faces-k50": _imm(50, share=0.5),
    "imm-faces-posed-k10": _imm(10, "procedural:faces-posed", start="imm-faces-k10", share=0.125),
    "imm-faces-posed-k30": _imm(30, "procedural:faces-posed", start="imm-faces-k30", share=0.125),
    "imm-faces-posed-k50": _imm(50, "procedural:faces-posed", start="imm-faces-k50", share=0.125),
    # IMM, Table 2: the losses, all trained equally long; a code without geometry, whose equivariance is not defined.
    "imm-faces-k30-content": _imm(30, share=0.25),
    "imm-faces-k30-l1": _imm(30, loss="l1", share=0.25),
    "imm-faces-k30-l2": _imm(30, loss="l2", share=0.25),
    "imm-faces-k30-adv-l1": _imm(30, loss="adv+l1", share=0.25),
    "imm-faces-k30-adv-l2": _imm(30, loss="adv+l2", share=0.25),
    **{
        f"imm-faces-fc-d{d}": _imm(
            d // 2,
            bottleneck="fc",
            equivariance=0.0,
            concentration=0.0,
            separation=0.0,
            reconstruct_every=1,
            share=0.125,
        )
        for d in (10, 20, 60)
    },
}


def train(
    name: str,
    profile: str = "laptop",
    *,
    out: Path | str,
    device: str = "auto",
    seed: int = 0,
    progress: bool = True,
) -> Trainable:
    """Make a model of the zoo, or read it where ``out`` already holds it.

    A model that it starts from is made beside it, in the folder of its own name. An interrupted training goes on.

    Args:
        name: A key of ``RECIPES``.
        profile: See :data:`ulm.runs.PROFILES`.
        out: The folder that the model is written to, with all its networks.
        device: See :func:`ulm.runs.pick_device`.
        seed: Of everything random.
        progress: Show a bar.

    Raises:
        InputError: For an unknown name, or if ``out`` holds another model.
    """
    if name not in RECIPES:
        raise InputError(f"found no recipe {name!r}, expected one of {', '.join(RECIPES)}")
    recipe, settings, out = RECIPES[name], runs.profile(profile), Path(out)
    model = _model(recipe, settings, seed, device)
    if (out / "config.json").is_file():
        found = methods.load(out, device, Trainable)
        if found.get_params() != model.get_params():
            raise InputError(f"{out}: found a model of other settings; choose another folder, or delete this one")
        return found
    start = None
    if recipe.start is not None:
        beside = out.parent / out.name.replace(name, recipe.start)
        start = train(recipe.start, profile, out=beside, device=device, seed=seed, progress=progress)
    data = datasets.load(recipe.data, "train", model.image_size, settings["data"])
    began = time.monotonic()
    model.fit(
        data,
        checkpoint=out.with_name(f"{out.name}.partial.safetensors"),
        log_every=max(1, model.steps // 20),
        monitor=_monitor(recipe, settings, model.image_size),
        progress=progress,
        start=start,
    )
    card = runs.provenance(
        model.torch_device,
        command=f"ulm zoo train {name} --profile {profile} --seed {seed} --out {name}",
        data=recipe.data,
        split="train",
        fingerprint=data.fingerprint,
        n_images=len(data),
        profile=profile,
        steps=model.steps,
        start=recipe.start,
        images_seen=model.history_[-1]["images_seen"],
        seconds=round(model.history_[-1].get("seconds", time.monotonic() - began), 1),
    )
    model.save_pretrained(out, card=card)
    zoo.write_card(out)
    out.with_name(f"{out.name}.partial.safetensors").unlink(missing_ok=True)
    return model


def _model(recipe: Recipe, settings: dict[str, Any], seed: int, device: str) -> Trainable:
    parameters = settings[recipe.method] | recipe.parameters | {"seed": seed, "device": device}
    parameters["steps"] = max(1, round(parameters["steps"] * recipe.share))
    return methods.METHODS[recipe.method](**parameters)


def _monitor(recipe: Recipe, settings: dict[str, Any], size: int) -> Monitor | None:
    """Errors on validation images along the way, for the learning curve; nothing is chosen by them."""
    if not issubclass(methods.METHODS[recipe.method], Detector):
        return None
    labelled = datasets.load(recipe.data, "train", size, settings["fit"])
    validation = datasets.load(recipe.data, "val", size, min(200, settings["test"] or 200))
    measure = evaluation.monitor(validation, labelled, labels=settings["labels"] or 300)
    return lambda detector, step: {k: round(v, 3) for k, v in measure(detector, step).items()}


def ship(name: str, made: Path | str, to: Path | str | None = None) -> Path:
    """Copy a model made by :func:`train` into the zoo, without the networks that its recipe leaves out."""
    folder = zoo.folder() / name if to is None else Path(to)
    model = methods.load(made, "cpu", Trainable)
    model.save_pretrained(folder, RECIPES[name].detector_only, zoo.config(made)["card"])
    zoo.write_card(folder)
    return folder
