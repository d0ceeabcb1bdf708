"""Train a method on a labelled folder of photographs, measure it on subjects never seen, and write results/.

Labels are used for the regressor and for measuring alone. The learning curve is measured on the validation subjects,
the recorded numbers on the test subjects, once, at the end.

Examples:
    python workflow/record.py --data coco:DATA/faces-ytf --landmarks 10 --steps 5000
    python workflow/record.py --data coco:DATA/faces-ytf --method stable-keypoints --tune 800
    python workflow/record.py --data coco:DATA/faces-ytf --method zero-shot --tune 600 -p region features
    python workflow/record.py --data coco:DATA/faces-ytf --method d-uld-bootstrap --tune 600 -p region features
    python workflow/record.py --data coco:DATA/faces-ytf --method d-uld --tune 600 --start d-uld-bootstrap \
        -p region features
    python workflow/record.py --data coco:DATA/faces-ytf --method inter-intra
    python workflow/record.py --data coco:DATA/faces-ytf --method inter-intra -p adaptation projection -p core FOLDER
    python workflow/record.py --data coco:DATA/people-lsp --name people-lsp --landmarks 20
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ulm import datasets, evaluation, methods, runs
from ulm.datasets import Dataset
from ulm.methods import Detector
from ulm.methods.zero_shot import ZeroShot

TITLES = {
    "imm": "IMM",
    "inter-intra": "Inter-Intra",
    "stable-keypoints": "StableKeypoints",
    "zero-shot": "ZeroShot",
    "d-uld-bootstrap": "bootstrapped",
    "d-uld": "D-ULD",
    "d-uld-pp": "D-ULD + PP",
    "d-uld++": "D-ULD++",
}
# Trained by drawing pictures, in their own size; their learning is watched.
DRAWING = ("imm", "inter-intra")
# Which table of the book's own a method stands in.
TABLES = dict.fromkeys(DRAWING, "") | {"stable-keypoints": "-stable-keypoints"}
# Captioned scenes that are shown beside photographs without captions, so that words keep their meaning.
SPOKEN = {
    "faces-ytf": {"procedural:tinted-faces": 2000, "procedural:faces-wild": 1000},
    "people-lsp": {"procedural:tinted-people": 2000, "procedural:people": 1000},
}
Cell = tuple[str, str, float | None]


def read() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="coco:FOLDER, with subjects")
    parser.add_argument("--name", default="faces-ytf", help="what the records call the data set")
    parser.add_argument("--method", default="imm", choices=sorted(TITLES))
    parser.add_argument("--landmarks", type=int, default=10)
    parser.add_argument("--steps", type=int, help="default: the profile's")
    parser.add_argument(
        "--start", help="fine-tune this model: a folder, a name in the zoo, or a stage that was recorded before"
    )
    parser.add_argument("--backbone", help="diffusion model: a folder, a hub id or pocket")
    parser.add_argument("--tune", type=int, help="steps that go on with the diffusion model on the training subjects")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument(
        "--work", type=Path, default=Path("_build/record"), help="checkpoints and weights, not committed"
    )
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("-p", "--parameter", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    return parser.parse_args()


def tuned(arguments: argparse.Namespace) -> str:
    """The folder of a diffusion model that has gone on learning on the training subjects, and on captioned scenes."""
    folder = arguments.work / f"pocket-{arguments.name}-{arguments.tune}-seed{arguments.seed}"
    if not (folder / "config.json").is_file():
        start = methods.load(arguments.backbone or "pocket", arguments.device, methods.Trainable)
        given = {
            "steps": arguments.tune,
            "text_steps": 0,
            "autoencoder_steps": 0,
            "decoder_steps": arguments.tune // 10,
        }
        settings = runs.profile("laptop")["pocket"] | given | {"seed": arguments.seed, "device": arguments.device}
        pocket = methods.METHODS["pocket"](**settings)
        shown = [datasets.load(arguments.data, "train", pocket.image_size)]
        spoken = SPOKEN.get(arguments.name, SPOKEN["faces-ytf"])
        shown += [datasets.load(spec, "train", pocket.image_size, n) for spec, n in spoken.items()]
        pocket.fit(shown, start=start, checkpoint=folder.with_name(f"{folder.name}.partial.safetensors"))
        pocket.save_pretrained(folder)
    return str(folder)


def parsed(value: str) -> Any:
    """JSON, or the word itself."""
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        return value


def file_name(arguments: argparse.Namespace, method: str, ending: str = "") -> str:
    """What the files of a recorded run are called."""
    called = method.replace("++", "-plus-plus")
    return f"{called}-{arguments.name}-k{arguments.landmarks}{ending}-seed{arguments.seed}"


def first(arguments: argparse.Namespace) -> Detector | None:
    """The model that training starts from."""
    if arguments.start in TITLES:
        return methods.load(arguments.work / file_name(arguments, arguments.start), arguments.device)
    return None if arguments.start is None else methods.load(arguments.start, arguments.device)


def make(arguments: argparse.Namespace) -> Detector:
    """The method, with the profile's settings and what was given besides."""
    given = {name: parsed(value) for name, value in arguments.parameter}
    if arguments.tune:
        arguments.backbone = tuned(arguments)
    given |= {name: getattr(arguments, name) for name in ("steps", "backbone") if getattr(arguments, name) is not None}
    settings = runs.profile("laptop")[arguments.method]
    common = {"n_landmarks": arguments.landmarks, "seed": arguments.seed, "device": arguments.device}
    model = methods.METHODS[arguments.method](**settings | common | given)
    assert isinstance(model, Detector)
    return model


def baselines(model: Detector, train: Dataset, test: Dataset, options: dict[str, Any]) -> Iterator[Cell]:
    """The same method on a U-Net of random weights, and random tokens on the trained one."""
    if isinstance(model, methods.StableKeypoints):
        known = {"random tokens": model.pipeline, "untrained U-Net": model.pipeline.untrained(model.seed)}
    elif isinstance(model, ZeroShot):
        known = {"untrained U-Net": model.pipeline.untrained(model.seed)}
    else:
        return
    for row, pipeline in known.items():
        other = type(model)(**model.get_params()).attach(pipeline)
        if isinstance(other, methods.StableKeypoints):
            other.initialise()
            other.choose(train)
        else:
            other.fit(train)
        found = evaluation.evaluate_detector(other, test, train, untrained=False, **options)
        title = TITLES[model.name]
        yield f"ours: {row}, {title}", "forward", found.forward_nme
        yield f"ours: {row}, {title}", "backward", found.backward_nme


def main() -> None:
    arguments = read()
    model = make(arguments)
    settings = runs.profile("laptop")
    # Every method sees the same pixels: maps and noise of a diffusion model are larger, not its pictures.
    drawing = arguments.method in DRAWING
    size = model.image_size if drawing else settings["diffusion"]["size"]
    train, val, test = (
        datasets.cached(datasets.load(arguments.data, split, size)) for split in ("train", "val", "test")
    )
    core = getattr(model, "core", None)
    begun = "-tuned" if drawing and arguments.start else "-core" if core else ""
    name = file_name(arguments, arguments.method, begun)
    watched = evaluation.monitor(val, train, labels=300) if drawing else None
    # ZeroShot looks at each image once.
    if isinstance(model, ZeroShot):
        model.set_params(images=min(model.images, len(train)))
    model.fit(
        train,
        start=first(arguments),
        checkpoint=arguments.work / f"{name}.safetensors",
        monitor=watched,
        log_every=max(1, model.steps // 20),
    )
    model.save_pretrained(arguments.work / name)
    options: dict[str, Any] = {"labels": 300, "repeats": 10}
    if arguments.method == "imm":
        options["supervised"] = evaluation.SupervisedBaseline(
            image_size=model.image_size, seed=arguments.seed, device=str(model.torch_device)
        )
    report = evaluation.evaluate_detector(model, test, train, untrained=arguments.method == "imm", **options)
    called = {"dataset": f"coco {arguments.name}", "fit_dataset": f"coco {arguments.name}"}
    # Where a model lies on this machine is nobody's business.
    parameters = {k: Path(v).name if v and k in ("backbone", "core") else v for k, v in model.get_params().items()}
    facts = {**report.facts(), **called, "profile": "laptop", "parameters": parameters}
    facts |= {
        "seconds": round(model.history_[-1]["seconds"], 1),
        "start": arguments.start and Path(arguments.start).name,
    } | ({"backbone_steps_on_training_subjects": arguments.tune} if arguments.tune else {})
    made = runs.provenance(model.torch_device, **facts)
    words = {"": "", "-tuned": ", begun from drawn faces", "-core": ", core of drawn people"}[begun]
    row = f"ours: {TITLES[arguments.method]} K={arguments.landmarks}{words}"
    cells: list[Cell] = [
        (row, "forward", report.forward_nme),
        (row, "backward", report.backward_nme),
        ("mean shape", "forward", report.mean_shape_nme),
        ("untrained network", "forward", report.untrained_nme),
        ("supervised, same labels", "forward", report.supervised_nme),
    ]
    cells += baselines(model, train, test, options)
    id = f"book/{arguments.name}" + TABLES.get(arguments.method, "-d-uld")
    measured = [runs.measurement(id, r, c, v, made) for r, c, v in cells if v is not None]
    runs.record(measured, arguments.results / f"{arguments.name}.json")
    curve = {
        "what": "learning curve" + (", validation subjects" if watched else ""),
        "history": model.history_,
        "provenance": made,
    }
    runs.atomic_write(arguments.results / "curves" / f"{name}.json", json.dumps(curve, indent=1) + "\n")
    print(json.dumps({r + " " + c: round(v, 2) for r, c, v in cells if v is not None}))


if __name__ == "__main__":
    main()
