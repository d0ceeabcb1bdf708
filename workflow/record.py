"""Train IMM on a labelled folder of photographs, measure it on subjects never seen, and write results/.

Labels are used for the regressor and for measuring alone. The learning curve is measured on the validation subjects,
the recorded numbers on the test subjects, once, at the end.

Example: python workflow/record.py --data coco:DATA/faces-ytf --landmarks 10 --steps 5000
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from ulm import datasets, evaluation, methods, runs
from ulm.methods import IMM

ID = "book/faces-ytf"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="coco:FOLDER, with subjects")
    parser.add_argument("--name", default="faces-ytf", help="what the records call the data set")
    parser.add_argument("--landmarks", type=int, default=10)
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--start", help="fine-tune this model: a folder, or a name in the zoo")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument(
        "--work", type=Path, default=Path("_build/record"), help="checkpoints and weights, not committed"
    )
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("-p", "--parameter", nargs=2, action="append", default=[], metavar=("NAME", "JSON"))
    arguments = parser.parse_args()

    given = {name: json.loads(value) for name, value in arguments.parameter}
    parameters: dict[str, Any] = {
        **runs.profile("laptop")["imm"],
        "n_landmarks": arguments.landmarks,
        "steps": arguments.steps,
        "seed": arguments.seed,
        "device": arguments.device,
        **given,
    }
    model = IMM(**parameters)
    train, val, test = (
        datasets.cached(datasets.load(arguments.data, split, model.image_size)) for split in ("train", "val", "test")
    )
    tuned = "" if arguments.start is None else "-tuned"
    name = f"imm-{arguments.name}-k{arguments.landmarks}{tuned}-seed{arguments.seed}"
    model.fit(
        train,
        start=None if arguments.start is None else methods.load(arguments.start, arguments.device),
        checkpoint=arguments.work / f"{name}.safetensors",
        monitor=evaluation.monitor(val, train, labels=300),
        log_every=max(1, arguments.steps // 20),
    )
    model.save_pretrained(arguments.work / name)
    supervised = evaluation.SupervisedBaseline(
        image_size=model.image_size, seed=arguments.seed, device=str(model.torch_device)
    )
    report = evaluation.evaluate_detector(model, test, train, labels=300, repeats=10, supervised=supervised)
    called = {"dataset": f"coco {arguments.name}", "fit_dataset": f"coco {arguments.name}"}
    facts = {**report.facts(), **called, "profile": "laptop", "parameters": parameters}
    facts |= {
        "seconds": round(model.history_[-1]["seconds"], 1),
        "start": arguments.start and Path(arguments.start).name,
    }
    made = runs.provenance(model.torch_device, **facts)
    row = f"ours: IMM K={arguments.landmarks}" + (", begun from drawn faces" if tuned else "")
    cells = [
        (row, "forward", report.forward_nme),
        (row, "backward", report.backward_nme),
        ("mean shape", "forward", report.mean_shape_nme),
        ("untrained network", "forward", report.untrained_nme),
        ("supervised, same labels", "forward", report.supervised_nme),
    ]
    measured = [runs.measurement(ID, r, c, v, made) for r, c, v in cells if v is not None]
    runs.record(measured, arguments.results / f"{arguments.name}.json")
    curve = {"what": "learning curve, validation subjects", "history": model.history_, "provenance": made}
    runs.atomic_write(arguments.results / "curves" / f"{name}.json", json.dumps(curve, indent=1) + "\n")
    print(json.dumps({r + " " + c: round(v, 2) for r, c, v in cells if v is not None}))


if __name__ == "__main__":
    main()
