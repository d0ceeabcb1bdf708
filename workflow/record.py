"""Train a method on a labelled folder of photographs, measure it on subjects never seen, and write results/.

Labels are used for the regressor and for measuring alone. The learning curve is measured on the validation subjects,
the recorded numbers on the test subjects, once, at the end.

Examples:
    python workflow/record.py --data coco:DATA/faces-ytf --landmarks 10 --steps 5000
    ulm fit --method pocket --data coco:DATA/faces-ytf --out POCKET
    python workflow/record.py --data coco:DATA/faces-ytf --method stable-keypoints --backbone POCKET
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

TITLES = {"imm": "IMM", "stable-keypoints": "StableKeypoints"}
Cell = tuple[str, str, float | None]


def read() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="coco:FOLDER, with subjects")
    parser.add_argument("--name", default="faces-ytf", help="what the records call the data set")
    parser.add_argument("--method", default="imm", choices=sorted(TITLES))
    parser.add_argument("--landmarks", type=int, default=10)
    parser.add_argument("--steps", type=int, help="default: the profile's")
    parser.add_argument("--start", help="fine-tune this model: a folder, or a name in the zoo")
    parser.add_argument("--backbone", help="diffusion model: a folder, a hub id or pocket")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument(
        "--work", type=Path, default=Path("_build/record"), help="checkpoints and weights, not committed"
    )
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("-p", "--parameter", nargs=2, action="append", default=[], metavar=("NAME", "JSON"))
    return parser.parse_args()


def make(arguments: argparse.Namespace) -> Detector:
    """The method, with the profile's settings and what was given besides."""
    given = {name: json.loads(value) for name, value in arguments.parameter}
    given |= {name: getattr(arguments, name) for name in ("steps", "backbone") if getattr(arguments, name) is not None}
    settings = runs.profile("laptop")[arguments.method]
    common = {"n_landmarks": arguments.landmarks, "seed": arguments.seed, "device": arguments.device}
    model = methods.METHODS[arguments.method](**settings | common | given)
    assert isinstance(model, Detector)
    return model


def baselines(model: Detector, test: Dataset, fit: Dataset, options: dict[str, Any]) -> Iterator[Cell]:
    """Random tokens, on the same U-Net and on one of random weights."""
    if not isinstance(model, methods.StableKeypoints):
        return
    rows = {"ours: random tokens": model.pipeline, "untrained network": model.pipeline.untrained(model.seed)}
    for row, pipeline in rows.items():
        other = methods.StableKeypoints(**model.get_params()).attach(pipeline)
        other.initialise()
        found = evaluation.evaluate_detector(other.choose(fit), test, fit, untrained=False, **options)
        yield f"{row}, StableKeypoints" if row.startswith("ours") else row, "forward", found.forward_nme
        if row.startswith("ours"):
            yield f"{row}, StableKeypoints", "backward", found.backward_nme


def main() -> None:
    arguments = read()
    model = make(arguments)
    settings = runs.profile("laptop")
    # Every method sees the same pixels: maps and noise of a diffusion model are larger, not its pictures.
    size = model.image_size if arguments.method == "imm" else settings["diffusion"]["size"]
    train, val, test = (
        datasets.cached(datasets.load(arguments.data, split, size)) for split in ("train", "val", "test")
    )
    tuned = "" if arguments.start is None else "-tuned"
    name = f"{arguments.method}-{arguments.name}-k{arguments.landmarks}{tuned}-seed{arguments.seed}"
    watched = evaluation.monitor(val, train, labels=300) if arguments.method == "imm" else None
    model.fit(
        train,
        start=None if arguments.start is None else methods.load(arguments.start, arguments.device),
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
    parameters = {k: Path(v).name if k == "backbone" else v for k, v in model.get_params().items()}
    facts = {**report.facts(), **called, "profile": "laptop", "parameters": parameters}
    facts |= {
        "seconds": round(model.history_[-1]["seconds"], 1),
        "start": arguments.start and Path(arguments.start).name,
    }
    made = runs.provenance(model.torch_device, **facts)
    row = f"ours: {TITLES[arguments.method]} K={arguments.landmarks}" + (", begun from drawn faces" if tuned else "")
    cells: list[Cell] = [
        (row, "forward", report.forward_nme),
        (row, "backward", report.backward_nme),
        ("mean shape", "forward", report.mean_shape_nme),
        ("untrained network", "forward", report.untrained_nme),
        ("supervised, same labels", "forward", report.supervised_nme),
    ]
    cells += baselines(model, test, train, options)
    id = f"book/{arguments.name}" + ("" if arguments.method == "imm" else f"-{arguments.method}")
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
