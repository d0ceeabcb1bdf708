"""How each model of the zoo is made: method, data and what differs from the profile."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ulm import clustering, datasets, evaluation, methods, runs, zoo
from ulm.datasets.base import Dataset
from ulm.errors import InputError
from ulm.methods import Trainable
from ulm.methods.inter_intra import VARIANTS
from ulm.methods.training import Monitor

STAGES = ("d-uld-bootstrap", "d-uld", "mallis-d", "d-uld-pp", "d-uld++")


@dataclass(frozen=True)
class Recipe:
    """One model of the zoo.

    Attributes:
        method: A key of ``ulm.methods.METHODS``.
        data: The specification of the training data; its split ``train`` is used, as many images as the profile says.
            Several data sets, with the most images of each, for a model that learns from all of them.
        parameters: Hyperparameters that differ from the profile's, such as ``n_landmarks``.
        start: The model that training starts from (fine-tuning).
        share: Training steps as a share of the profile's.
        images: The most training images, where a table asks for few.
        detector_only: Whether the generator is left out of what ships.
        seed: Added to the seed that training is given, of rows that repeat another one.
    """

    method: str
    data: str | Mapping[str, int]
    parameters: dict[str, Any] = field(default_factory=dict)
    start: str | None = None
    share: float = 1.0
    images: int | None = None
    detector_only: bool = True
    seed: int = 0

    @property
    def spec(self) -> str:
        """The data in one string."""
        return self.data if isinstance(self.data, str) else " + ".join(self.data)

    def load(self, settings: Mapping[str, Any], size: int) -> Dataset:
        """The training images of a profile."""
        if isinstance(self.data, str):
            most = [n for n in (self.images, settings["data"]) if n is not None]
            return datasets.load(self.data, "train", size, min(most, default=None))
        from ulm.methods.pocket import Gallery

        # Without a limit of the profile: all images of all of them.
        most_of = {spec: settings["data"] and min(n, settings["data"]) for spec, n in self.data.items()}
        return Gallery([datasets.load(spec, "train", size, n) for spec, n in most_of.items()])


def _imm(k: int, data: str = "procedural:faces", **changes: Any) -> Recipe:
    kept = {name: changes.pop(name) for name in ("start", "share", "detector_only") if name in changes}
    return Recipe("imm", data, {"n_landmarks": k, **changes}, **kept)


def _video(k: int, scene: str, start: str, **changes: Any) -> Recipe:
    """IMM on two frames of one video, after warps of one frame; the drawing is made at every step."""
    terms = {"equivariance": 10.0, "concentration": 0.5, "separation": 1.0, "reconstruct_every": 1}
    chosen = {"pairs": "video", "learning_rate": 2e-3, **terms, **changes}
    return _imm(k, f"procedural:{scene}", start=start, share=0.125, **chosen)


def _drawn(k: int, data: str) -> Recipe:
    """IMM on two frames from the first step on, with nothing but the drawing, and its generator: for swaps.

    A generator that begins with warps of one frame copies its source. Most of all it must draw, so pictures are small,
    and the loss sees colours, as the perceptual one does not.
    """
    terms = {"equivariance": 0.0, "concentration": 0.0, "separation": 0.0, "reconstruct_every": 1}
    chosen = {"pairs": "video", "image_size": 32, "loss": "l2", "learning_rate": 4e-3}
    return _imm(k, data, share=1.5, detector_only=False, **chosen, **terms)


def _exchange(
    k: int, variant: str = "all", core: str | None = "pose-core-people", seed: int = 0, **changes: Any
) -> Recipe:
    """Inter-Intra, on a core that was trained on labelled people as in the paper, or from scratch."""
    begin = {"adaptation": "scratch"} if core is None else {"adaptation": "projection", "core": core}
    kept = {"n_landmarks": k, "variant": variant, **begin, **changes}
    # The chapter redraws faces with the full model.
    only = bool(changes) or seed > 0 or variant != "all"
    return Recipe("inter-intra", "procedural:faces-posed", kept, detector_only=only, seed=seed)


def _tokens(k: int, scene: str, images: int | None = None, **changes: Any) -> Recipe:
    return Recipe("stable-keypoints", f"procedural:{scene}", {"n_landmarks": k, **changes}, images=images)


def _stages(k: int, scene: str = "faces-posed", ending: str = "", seed: int = 0, poses: int = 10) -> dict[str, Recipe]:
    """The stages of D-ULD for one K, each with the one that it starts from.

    What the stages share is made once: the bootstrapping knows no K, D-ULD no Q.
    """
    data = f"procedural:{scene}"
    boot = f"d-uld-bootstrap-{scene}{ending}"
    plain, proxy, mallis = (f"{kind}-{scene}-k{k}{ending}" for kind in ("d-uld", "d-uld-pp", "mallis-d"))
    study = "" if poses == 10 else f"-q{poses}"
    chosen = {"n_landmarks": k}
    paired = {**chosen, "n_poses": poses}
    return {
        boot: Recipe("d-uld-bootstrap", data, {"n_landmarks": 10}, seed=seed),
        plain: Recipe("d-uld", data, chosen, start=boot, seed=seed),
        mallis: Recipe("mallis-d", data, chosen, start=boot, seed=seed),
        proxy: Recipe("d-uld-pp", data, chosen, start=plain, seed=seed),
        f"d-uld-full-vae-{scene}-k{k}{study}{ending}": Recipe(
            "d-uld++", data, {**paired, "phases": "first"}, start=proxy, seed=seed
        ),
        f"d-uld-plus-plus-{scene}-k{k}{study}{ending}": Recipe("d-uld++", data, paired, start=proxy, seed=seed),
    }


# Pictures of 39 kinds: six scenes, eighteen species of birds, five categories of toys, ten digits.
LABELLED = {
    "procedural:faces-posed": 600,
    "procedural:cats": 600,
    "procedural:people": 400,
    "procedural:signers": 400,
    "procedural:exercise": 400,
    "procedural:fashion": 400,
    "procedural:birds": 1800,
    "procedural:toys": 1000,
    "procedural:house-digits": 2000,
}

SUPERVISED = {"perceptual": "vgg16-labels"}

RECIPES: dict[str, Recipe] = {
    "vgg16-colour": Recipe("colourisation", "procedural:faces"),
    # The two other perceptual networks: deeper, for Inter-Intra's Table III, and one that learned from labels what
    # pictures show, for the rows *sup* of IMM. ImageNet's are one call away, and not here.
    "vgg19-colour": Recipe("colourisation", "procedural:faces", {"depth": "vgg19"}),
    "vgg16-labels": Recipe("recognition", LABELLED),
    # IMM, Table 1: trained on faces like CelebA's, fine-tuned on faces of all poses like AFLW's.
    "imm-faces-k10": _imm(10, detector_only=False),
    "imm-faces-k30": _imm(30, share=0.5),
    "imm-faces-k50": _imm(50, share=0.5),
    "imm-faces-posed-k10": _imm(10, "procedural:faces-posed", start="imm-faces-k10", share=0.125),
    "imm-faces-posed-k30": _imm(30, "procedural:faces-posed", start="imm-faces-k30", share=0.125),
    "imm-faces-posed-k50": _imm(50, "procedural:faces-posed", start="imm-faces-k50", share=0.125),
    **{f"imm-faces-k{k}-sup": _imm(k, share=1.0 if k == 10 else 0.5, **SUPERVISED) for k in (10, 30, 50)},
    **{
        f"imm-faces-posed-k{k}-sup": _imm(
            k, "procedural:faces-posed", start=f"imm-faces-k{k}-sup", share=0.125, **SUPERVISED
        )
        for k in (10, 30, 50)
    },
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
    # Inter-Intra, Tables I and III. As in the paper one training serves both columns, and the detector is an hourglass
    # that knows people; then the experiment that the paper announces and leaves out: all weights from scratch.
    "pose-core-people": Recipe("pose-core", "procedural:people", {"subset": "mpii-16"}),
    **{f"ii-faces-posed-k10-{variant}": _exchange(10, variant) for variant in VARIANTS},
    "ii-faces-posed-k30-all": _exchange(30),
    "ii-faces-posed-k50-all": _exchange(50),
    **{f"ii-faces-posed-k10-{variant}-scratch": _exchange(10, variant, core=None) for variant in VARIANTS},
    "ii-faces-posed-k10-reconstruction": _exchange(10, loss="reconstruction"),
    "ii-faces-posed-k10-perceptual": _exchange(10, loss="perceptual"),
    "ii-faces-posed-k10-vgg19": _exchange(10, perceptual="vgg19-colour"),
    **{
        f"ii-faces-posed-k10-{variant}-seed{seed}": _exchange(10, variant, seed=seed)
        for seed in (1, 2)
        for variant in ("baseline", "all")
    },
    # The diffusion model of the book. It learns first that words name parts, from pictures whose captions give every
    # part its colour, with a few of all others beside them for the autoencoder; then every category that the scenes
    # have; then for longest the faces and birds of natural scenes, and their tinted copies, where words are hardest.
    "pocket-parts": Recipe(
        "pocket",
        {
            "procedural:simple-faces": 4000,
            "procedural:simple-birds": 4000,
            "procedural:tinted-faces": 3000,
            "procedural:tinted-birds": 3000,
            "procedural:faces-wild": 800,
            "procedural:birds": 800,
            "procedural:cats": 200,
            "procedural:people": 200,
            "procedural:fashion": 200,
            "procedural:signers": 100,
            "procedural:toys": 100,
            "procedural:house-numbers": 100,
        },
        {"decoder_steps": 0},
    ),
    "pocket-scenes": Recipe(
        "pocket",
        {
            "procedural:tinted-faces": 4000,
            "procedural:tinted-birds": 3000,
            "procedural:faces-wild": 2000,
            "procedural:birds": 2000,
            "procedural:simple-faces": 500,
            "procedural:simple-birds": 500,
            "procedural:painted-faces": 200,
            "procedural:painted-birds": 200,
            "procedural:tinted-cats": 300,
            "procedural:tinted-people": 300,
            "procedural:faces-posed": 300,
            "procedural:cats": 400,
            "procedural:people": 300,
            "procedural:fashion": 300,
            "procedural:exercise": 150,
            "procedural:signers": 100,
            "procedural:toys": 150,
            "procedural:house-numbers": 150,
        },
        {"text_steps": 150, "autoencoder_steps": 0},
        start="pocket-parts",
        share=1.125,
    ),
    "pocket": Recipe(
        "pocket",
        {
            "procedural:tinted-faces": 4000,
            "procedural:tinted-birds": 4000,
            "procedural:faces-wild": 3000,
            "procedural:birds": 2000,
            "procedural:simple-faces": 500,
            "procedural:simple-birds": 700,
            "procedural:painted-faces": 200,
            "procedural:painted-birds": 200,
            "procedural:tinted-cats": 200,
            "procedural:tinted-people": 200,
            "procedural:faces-posed": 400,
            "procedural:cats": 200,
            "procedural:people": 200,
            "procedural:fashion": 200,
            "procedural:exercise": 100,
            "procedural:signers": 100,
            "procedural:toys": 100,
            "procedural:house-numbers": 100,
        },
        {"text_steps": 0, "autoencoder_steps": 0},
        start="pocket-scenes",
        share=1.55,
    ),
    # StableKeypoints, Table 1, and Section 4.3: few training images.
    "sk-faces-k10": _tokens(10, "faces"),
    "sk-faces-posed-k10": _tokens(10, "faces-posed"),
    "sk-faces-wild-k4": _tokens(4, "faces-wild"),
    "sk-faces-wild-k8": _tokens(8, "faces-wild"),
    "sk-faces-wild-k8-n100": _tokens(8, "faces-wild", images=100),
    "sk-faces-wild-k8-n30": _tokens(8, "faces-wild", images=30),
    "sk-faces-wild-k8-paper": _tokens(8, "faces-wild", convention="paper"),
    "sk-faces-wild-k8-release": _tokens(8, "faces-wild", losses_on=None, locality=None),
    # Table 2: birds, aligned, three species of 30 images each, and all; Table 4 on all.
    "sk-birds-aligned-k10": _tokens(10, "birds-aligned"),
    "sk-birds-001-k4": _tokens(4, "birds-001", images=30),
    "sk-birds-002-k4": _tokens(4, "birds-002", images=30),
    "sk-birds-003-k4": _tokens(4, "birds-003", images=30),
    "sk-birds-k4": _tokens(4, "birds"),
    "sk-birds-k4-no-fps": _tokens(4, "birds", kappa=4),
    "sk-birds-k4-no-upsampling": _tokens(4, "birds", upsampling="map"),
    "sk-birds-k4-no-equivariance": _tokens(4, "birds", equivariance=0.0),
    # Table 3: people. Table 5 also needs ten points of birds.
    "sk-people-k16": _tokens(16, "people"),
    "sk-people-shifted-k16": _tokens(16, "people-shifted"),
    "sk-fashion-k16": _tokens(16, "fashion"),
    "sk-exercise-k10": _tokens(10, "exercise"),
    "sk-birds-k10": _tokens(10, "birds"),
    # The scenes from which the pocket learns what words name.
    "sk-simple-faces-k8": _tokens(8, "simple-faces"),
    "sk-simple-birds-k8": _tokens(8, "simple-birds"),
    # IMM on the same data, for one protocol.
    "imm-faces-wild-k4": _imm(4, "procedural:faces-wild", share=0.25),
    "imm-faces-wild-k8": _imm(8, "procedural:faces-wild", share=0.25),
    "imm-birds-k4": _imm(4, "procedural:birds", share=0.25),
    "imm-simple-faces-k8": _imm(8, "procedural:simple-faces", share=0.25),
    "imm-simple-birds-k8": _imm(8, "procedural:simple-birds", share=0.25),
    # IMM beyond faces, Figures 4 to 7 and the video rows of Table 1: first two warps of one frame, then the paper's own
    # pairs, two frames of one video. There the drawing is made at every step, and has the most to say.
    "imm-signers-k50": _imm(50, "procedural:signers", share=0.25),
    "imm-people-k20": _imm(20, "procedural:people", share=0.25),
    "imm-talking-faces-k30": _imm(30, "procedural:talking-faces", share=0.25),
    **{
        f"imm-{scene}-k{k}-video": _video(k, scene, f"imm-{scene}-k{k}", detector_only=scene != "people")
        for scene, k in (("signers", 50), ("people", 20), ("talking-faces", 30))
    },
    # The rows *sup*: the same trainings, told by the network that learned from labels.
    **{
        name: recipe
        for scene, k in (("signers", 50), ("talking-faces", 30))
        for name, recipe in {
            f"imm-{scene}-k{k}-sup-warps": _imm(k, f"procedural:{scene}", share=0.25, **SUPERVISED),
            f"imm-{scene}-k{k}-sup": _video(k, scene, f"imm-{scene}-k{k}-sup-warps", **SUPERVISED),
        }.items()
    },
    "imm-talking-faces-posed-k30": _imm(30, "procedural:faces-posed", start="imm-talking-faces-k30-video", share=0.125),
    "imm-talking-faces-posed-k30-sup": _imm(
        30, "procedural:faces-posed", start="imm-talking-faces-k30-sup", share=0.125, **SUPERVISED
    ),
    # For Figure 7: digits, and people who move more than those of Figure 5.
    "imm-house-digits-k20": _drawn(20, "procedural:house-digits"),
    "imm-exercise-k20": _drawn(20, "procedural:exercise"),
    "imm-toys-k20": _imm(20, "procedural:toys", share=0.25),
    # Its generator is kept: it redraws one person in the pose of another.
    "imm-faces-posed-k10-swap": _imm(
        10, "procedural:faces-posed", start="imm-faces-k10", share=0.25, detector_only=False
    ),
    # ZeroShot and D-ULD: all stages, two further trainings of those with K = 10, and the study of Q and K.
    **{
        f"zero-shot-{scene}-k{k}": Recipe("zero-shot", f"procedural:{scene}", {"n_landmarks": k})
        for scene in ("faces-posed", "cats")
        for k in (10, 30)
    },
    **_stages(10),
    **_stages(10, ending="-seed1", seed=1),
    **_stages(10, ending="-seed2", seed=2),
    **_stages(10, "cats"),
    **{
        name: recipe
        for k, q in ((10, 5), (10, 20), (10, 30), *((k, q) for k in (20, 30) for q in (10, 20, 30)))
        for name, recipe in _stages(k, poses=q).items()
        if "full-vae" not in name and (k, recipe.method) != (20, "mallis-d")
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
    changes: Mapping[str, Any] | None = None,
) -> Trainable:
    """Make a model of the zoo, or read it where ``out`` already holds it.

    A model that it starts from, or that it is adapted from, is made beside it, in the folder of its own name. An
    interrupted training goes on.

    Args:
        name: A key of ``RECIPES``.
        profile: See :data:`ulm.runs.PROFILES`.
        out: The folder that the model is written to, with all its networks.
        device: See :func:`ulm.runs.pick_device`.
        seed: Of everything random.
        progress: Show a bar.
        changes: Hyperparameters that differ from the recipe's, such as ``backbone``.

    Raises:
        InputError: For an unknown name or hyperparameter, or if ``out`` holds another model.
    """
    if name not in RECIPES:
        raise InputError(f"found no recipe {name!r}, expected one of {', '.join(RECIPES)}")
    recipe, settings, out = RECIPES[name], runs.profile(profile), Path(out)
    model = _model(recipe, settings, {**(changes or {}), "seed": seed + recipe.seed, "device": device})
    if (out / "config.json").is_file():
        found = methods.load(out, device, Trainable)
        if found.get_params() != model.get_params():
            raise InputError(f"{out}: found a model of other settings; choose another folder, or delete this one")
        return found
    start = None
    if recipe.start is not None:
        beside = _beside(out, name, recipe.start)
        start = train(recipe.start, profile, out=beside, device=device, seed=seed, progress=progress, changes=changes)
    core = getattr(model, "core", None)
    if core in RECIPES:
        beside = _beside(out, name, core)
        train(core, profile, out=beside, device=device, seed=seed, progress=progress)
        model.core = str(beside)  # type: ignore[attr-defined]
    sizes = _sizes(recipe, model, settings)
    data = recipe.load(sizes, sizes["size"])
    began = time.monotonic()
    model.fit(
        data,
        checkpoint=out.with_name(f"{out.name}.partial.safetensors"),
        log_every=max(1, model.steps // 20),
        monitor=_monitor(recipe, sizes),
        progress=progress,
        start=start,
    )
    if core in RECIPES:
        # The model keeps the core's name; where it lay is nobody's business.
        model.core = core  # type: ignore[attr-defined]
    card = runs.provenance(
        model.torch_device,
        command=f"ulm zoo train {name} --profile {profile} --seed {seed} --out {name}",
        data=recipe.spec,
        split="train",
        fingerprint=data.fingerprint,
        n_images=len(data),
        profile=profile,
        steps=model.steps,
        start=recipe.start,
        **({"core": core} if core else {}),
        images_seen=model.history_[-1]["images_seen"],
        seconds=round(model.history_[-1].get("seconds", time.monotonic() - began), 1),
    )
    model.save_pretrained(out, card=card)
    zoo.write_card(out)
    out.with_name(f"{out.name}.partial.safetensors").unlink(missing_ok=True)
    return model


def _beside(out: Path, name: str, other: str) -> Path:
    """The folder of another model: its name in place of this one's, or after a name that has nothing of it."""
    return out.with_name(out.name.replace(name, other) if name in out.name else f"{out.name}-{other}")


def _model(recipe: Recipe, settings: dict[str, Any], changes: dict[str, Any]) -> Trainable:
    parameters = settings[recipe.method] | recipe.parameters | changes
    # ZeroShot counts its steps by its images.
    if "steps" in parameters:
        parameters["steps"] = max(1, round(parameters["steps"] * recipe.share))
    return methods.METHODS[recipe.method](**parameters)


def _sizes(recipe: Recipe, model: Trainable, settings: dict[str, Any]) -> dict[str, Any]:
    """Numbers of images and their size: of the profile, or of the chapters on diffusion models."""
    if recipe.method == "stable-keypoints":
        return dict(settings["diffusion"])
    return {**settings, "size": model.image_size}  # type: ignore[attr-defined]


def _monitor(recipe: Recipe, sizes: dict[str, Any]) -> Monitor | None:
    """Errors on validation images along the way, for the learning curve; nothing is chosen by them."""
    # Ten views an image make a prediction of StableKeypoints as dear as ten steps of its training.
    if recipe.method not in ("imm", "inter-intra", *STAGES):
        return None
    most = 100 if recipe.method in STAGES else 200
    labelled = datasets.labelled(recipe.spec, sizes["size"], sizes["data"], sizes["fit"])
    if not len(labelled[0]["landmarks"]):
        # Digits and toys have no annotation to compare with.
        return None
    validation = datasets.labelled(recipe.spec, sizes["size"], None, min(most, sizes["test"] or most), "val")
    measure = evaluation.monitor(validation, labelled, labels=min(most, sizes["labels"] or 300))
    yaws = datasets.cached(validation, progress=False).column("yaw") if recipe.method == "d-uld++" else None

    def look(detector: Any, step: int) -> dict[str, float]:
        found = measure(detector, step)
        if yaws is not None:
            ranges = np.digitize(np.asarray(yaws, float).ravel(), evaluation.YAW_RANGES[1:-1])
            accuracy = clustering.accuracy_by_class(detector.poses(validation).numpy(), ranges, "majority")
            found |= {f"pose_accuracy_{place}": float(value) for place, value in enumerate(accuracy)}
        return {name: round(value, 3) for name, value in found.items()}

    return look


def ship(name: str, made: Path | str, to: Path | str | None = None) -> Path:
    """Copy a model made by :func:`train` into the zoo, without the networks that its recipe leaves out."""
    folder = zoo.folder() / name if to is None else Path(to)
    model = methods.load(made, "cpu", Trainable)
    model.save_pretrained(folder, RECIPES[name].detector_only, zoo.config(made)["card"])
    zoo.write_card(folder)
    return folder
