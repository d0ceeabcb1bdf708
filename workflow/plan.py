"""Which notebooks the book has, and the key of the contents that each result depends on."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ulm.errors import InputError
from ulm.notebooks import parameters_of, read

BUILD = Path("_build")


@dataclass(frozen=True)
class Job:
    """One notebook to execute."""

    name: str
    page: str  # as in _toc.yml, such as notebooks/imm_faces
    source: str
    output: str
    numbers: str
    needs: tuple[str, ...]  # pages whose numbers this notebook reads
    threads: int
    memory_mb: int
    minutes: int
    parameters: dict[str, str]
    key: str


def pages(root: Path) -> list[str]:
    """Every page of _toc.yml in order, without suffix."""
    toc = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))
    found: list[str] = [toc["root"]]

    def walk(node: Any) -> None:
        if isinstance(node, dict):
            if "file" in node:
                found.append(node["file"])
            for value in node.values():
                walk(value)
        elif isinstance(node, list):
            for item in node:
                walk(item)

    walk(toc)
    return found


def notebooks(root: Path) -> list[str]:
    """The pages of _toc.yml that are notebooks."""
    found = []
    for page in pages(root):
        if (root / f"{page}.py").is_file():
            found.append(page)
        elif not (root / f"{page}.md").is_file():
            raise InputError(f"_toc.yml names {page}, but there is neither {page}.py nor {page}.md")
    return found


def _files(folder: Path) -> Iterable[Path]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts and not path.name.startswith("."):
            yield path


def tree_hash(root: Path, *folders: str) -> str:
    """A hash of all file names and contents below the folders (or of the files themselves)."""
    total = hashlib.sha256()
    for name in folders:
        start = root / name
        for path in [start] if start.is_file() else _files(start):
            total.update(path.relative_to(root).as_posix().encode() + b"\0")
            total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def data_hash(data_root: str) -> str:
    """A hash of the names and sizes below the data folder; empty where none is given.

    Raises:
        InputError: The folder does not exist.
    """
    if not data_root:
        return ""
    folder = Path(data_root)
    if not folder.is_dir():
        raise InputError(f"found no folder {data_root}; give DATA_ROOT the folder that holds the data sets")
    total = hashlib.sha256()
    for path, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(files):
            file = Path(path) / name
            total.update(f"{file.relative_to(folder)}\0{file.stat().st_size}\n".encode())
    return total.hexdigest()


def plan(root: Path, profile: str, cores: int, data_root: str = "", device: str = "auto") -> list[Job]:
    """One job a notebook. A notebook's metadata may say, under ``ulm``: ``needs`` (pages whose numbers it reads),
    ``threads`` (default: one, in the paper profile all cores), ``memory_mb``, and ``minutes`` (about how long it runs
    in the laptop profile; the longest begin first).

    Two notebooks of one thread each are done sooner than one after the other with two, and a result does not depend on
    how many cores there are. Training at the size of the papers is another matter: there one notebook takes them all.
    """
    common = {
        "ulm": tree_hash(root, "ulm"),
        "recorded": tree_hash(root, "results"),
        "lock": tree_hash(root, "requirements.lock"),
        "workflow": tree_hash(root, "workflow/execute.py"),
        "data": data_hash(data_root),
    }
    runs = BUILD / "runs" / profile
    given = {"profile": profile, "data_root": data_root, "device": device}
    jobs: dict[str, Job] = {}
    for page in notebooks(root):
        content = read(root / f"{page}.py")
        wishes = content.metadata.get("ulm", {})
        threads = min(int(wishes.get("threads", cores if profile == "paper" else 1)), cores)
        parameters = {key: value for key, value in given.items() if key in parameters_of(content)}
        needs = tuple(wishes.get("needs", ()))
        for other in needs:
            if other not in jobs:
                raise InputError(f"{page} needs {other}, which is no earlier notebook of _toc.yml")
        facts = {
            **common,
            "text": tree_hash(root, f"{page}.py", f"{page}.ipynb"),
            "parameters": parameters,
            "threads": threads,
            "needs": [jobs[other].key for other in needs],
        }
        jobs[page] = Job(
            name=Path(page).name,
            page=page,
            source=f"{page}.py",
            output=(runs / f"{page}.ipynb").as_posix(),
            numbers=(runs / "numbers" / Path(page).name).as_posix(),
            needs=needs,
            threads=threads,
            memory_mb=int(wishes.get("memory_mb", 5000)),
            minutes=int(wishes.get("minutes", 0)),
            parameters=parameters,
            key=hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16],
        )
    return list(jobs.values())
