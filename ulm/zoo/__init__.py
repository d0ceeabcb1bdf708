"""Trained weights that ship with the book: one folder a model, with a card that says how it was made.

A model folder holds ``config.json`` (method, hyperparameters, the SHA-256 of the weights, the card), the weights in
``model.safetensors`` (a pipeline: one file a network), and ``card.md``, the card for reading. Nothing in it is ever
unpickled.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ulm.errors import InputError

_ROOT = Path(__file__).parent
_PICKLES = (".pt", ".pth", ".pkl", ".pickle", ".bin", ".ckpt", ".joblib", ".npz")
WEIGHTS = "model.safetensors"
_KEYS = ("method", "parameters", "networks", "sha256")


def checksum(weights: bytes | Path) -> str:
    """SHA-256 of the contents of ``model.safetensors``, or of the file at a path, in hexadecimal."""
    data = weights.read_bytes() if isinstance(weights, Path) else weights
    return hashlib.sha256(data).hexdigest()


def folder() -> Path:
    """The folder that holds the zoo."""
    return _ROOT


def names(root: Path | None = None) -> Sequence[str]:
    """Names of the models that ship with the book."""
    return sorted(p.parent.name for p in (root or _ROOT).glob("*/config.json"))


def path(name: str, root: Path | None = None) -> Path:
    """The folder of a model of the zoo.

    Raises:
        InputError: There is no such model; also for what looks like a path, so that a missing folder is said.
    """
    known = names(root)
    if name in known:
        return (root or _ROOT) / name
    raise InputError(
        f"found no model folder {name!r} and no zoo model of that name; "
        f"expected a folder written by 'ulm fit', or one of {', '.join(known) or '(the zoo is empty)'}"
    )


def config(folder: Path | str) -> dict[str, Any]:
    """Read ``config.json`` of a model folder; raises InputError if it is missing, broken or of another program."""
    file = Path(folder) / "config.json"
    if not file.is_file():
        raise InputError(
            f"found no config.json in {folder}, expected a model folder written by 'ulm fit'; check the path"
        )
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{file}: found broken JSON ({error}); fetch or make the model again") from None
    missing = [key for key in _KEYS if not isinstance(content, dict) or key not in content]
    if missing:
        raise InputError(f"{file}: found no {', '.join(missing)}, expected a model written by 'ulm fit'")
    return content


def verify(folder: Path | str) -> dict[str, Any]:
    """Check a model folder before anything in it is loaded.

    Returns:
        Its config.

    Raises:
        InputError: A file is missing or broken, the weights have another SHA-256 than ``config.json`` says, or a file
            is a pickle, which can run any program when it is loaded.
    """
    folder = Path(folder)
    for file in sorted(p for p in folder.rglob("*") if p.is_file()):
        if file.suffix.lower() in _PICKLES or _looks_pickled(file):
            raise InputError(
                f"{file}: found a pickle (or a file that may hold one), which can run any program when loaded; "
                "expected safetensors; remove it, or convert it where it was made"
            )
    content = config(folder)
    for weights, expected in _weights(folder, content).items():
        if not weights.is_file():
            raise InputError(f"found no {weights.relative_to(folder)} in {folder}; fetch or make the model again")
        found = checksum(weights)
        if found != expected:
            raise InputError(
                f"{weights}: found SHA-256 {found[:12]}..., expected {str(expected)[:12]}... of config.json; "
                "the file is damaged or was changed; fetch or make the model again"
            )
    return content


def _weights(folder: Path, content: dict[str, Any]) -> dict[Path, str]:
    """The files of weights and their SHA-256: one, or for a pipeline one a network."""
    sha256 = content["sha256"]
    return {folder / name: sha for name, sha in (sha256 if isinstance(sha256, dict) else {WEIGHTS: sha256}).items()}


def list(root: Path | None = None) -> Sequence[dict[str, Any]]:
    """One dict a model: ``name``, ``method``, ``landmarks``, ``image_size``, ``megabytes``, ``data``, ``measured``."""
    rows = []
    for name in names(root):
        folder = path(name, root)
        content = config(folder)
        parameters, facts = content["parameters"], content.get("card") or {}
        files = [file for file in _weights(folder, content) if file.is_file()]
        rows.append(
            {
                "name": name,
                "method": content["method"],
                "landmarks": parameters.get("n_landmarks"),
                "image_size": parameters.get("image_size"),
                "megabytes": round(sum(f.stat().st_size for f in files) / 1e6, 2) if files else None,
                "data": facts.get("data"),
                "measured": facts.get("measured", []),
            }
        )
    return rows


def card(name: str, root: Path | None = None) -> dict[str, Any]:
    """How a model of the zoo was made: ``command``, ``data``, ``fingerprint``, ``seconds``, ``measured`` and more."""
    return config(path(name, root)).get("card") or {}


def card_text(folder: Path | str) -> str:
    """The card of a model folder as Markdown."""
    folder, content = Path(folder), config(folder)
    facts = content.get("card") or {}
    hashes = ", ".join(f"`{sha}`" for sha in _weights(folder, content).values())
    lines = [f"# {folder.name}", "", f"Method `{content['method']}`, SHA-256 of the weights {hashes}.", ""]
    if command := facts.get("command"):
        lines += ["Make it again:", "", "```", command, "```", ""]
    shown = {k: v for k, v in facts.items() if k not in ("command", "arguments", "measured") and v is not None}
    if shown:
        lines += ["| made | |", "|---|---|", *(f"| {k} | {_words(v)} |" for k, v in shown.items()), ""]
    lines += ["| hyperparameter | value |", "|---|---|"]
    lines += [f"| {k} | {_words(v)} |" for k, v in content["parameters"].items()]
    for measured in facts.get("measured", []):
        lines += ["", "| measured | |", "|---|---|", *(f"| {k} | {_words(v)} |" for k, v in measured.items())]
    return "\n".join(lines) + "\n"


def write_card(folder: Path | str) -> None:
    """Write ``card.md`` of a model folder from its config."""
    from ulm.runs import atomic_write

    atomic_write(Path(folder) / "card.md", card_text(folder))


def add_measurement(folder: Path | str, measured: dict[str, Any]) -> None:
    """Add measured numbers to the card of a model folder; those of the same data and settings are replaced."""
    from ulm.runs import atomic_write

    content = config(folder)
    facts = content.setdefault("card", {})
    same = ("data", "fit_data", "labels", "regressor", "normaliser", "subset")
    kept = [m for m in facts.get("measured", []) if any(m.get(k) != measured.get(k) for k in same)]
    facts["measured"] = [*kept, measured]
    atomic_write(Path(folder) / "config.json", json.dumps(content, indent=1) + "\n")
    write_card(folder)


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {_words(v)}" for k, v in value.items())
    return str(value).replace("|", "\\|").replace("\n", " ")


def _looks_pickled(file: Path) -> bool:
    """A pickle of protocol 2 to 5, or a zip archive as torch.save writes it, whatever the file is called."""
    with file.open("rb") as stream:
        start = stream.read(9)
    safetensors = start[8:9] == b"{"
    return (start[:1] == b"\x80" and start[1:2] in (b"\2", b"\3", b"\4", b"\5") and not safetensors) or start[
        :4
    ] == b"PK\3\4"
