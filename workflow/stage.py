"""Lay out what the book is rendered from: a tree that mirrors the repository, with the executed notebooks in place."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from plan import BUILD, notebooks

from ulm import tables
from ulm.notebooks import duration

PAPERS = {
    "imm": "IMM: conditional image generation",
    "inter-intra": "Inter-Intra: inter-intra subject consistencies",
    "stable-keypoints": "StableKeypoints: pretrained diffusion models",
    "d-uld": "D-ULD++: pose-guided self-training, two-stage clustering",
}


def lay_out(root: Path, profile: str, base: Path = BUILD, repository: str = "") -> Path:
    """Write ``BASE/staging`` and ``BASE/numbers`` from the executed notebooks of a profile; returns the former."""
    runs, staging = root / BUILD / "runs" / profile, root / base / "staging"
    shutil.rmtree(staging, ignore_errors=True)
    shutil.copytree(root / "book", staging / "book")
    shutil.copy(root / "_toc.yml", staging)
    (staging / "_config.yml").write_text(yaml.safe_dump(config(root, repository), sort_keys=False), encoding="utf-8")
    for page in notebooks(root):
        target = staging / f"{page}.ipynb"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(runs / f"{page}.ipynb", target)
    numbers = root / base / "numbers"
    shutil.rmtree(numbers, ignore_errors=True)
    if (runs / "numbers").is_dir():
        shutil.copytree(runs / "numbers", numbers, ignore=shutil.ignore_patterns(".*"))
    os.environ["ULM_NUMBERS"] = str(numbers)  # `ulm.tables` reads this build's numbers there
    generated = staging / "book" / "generated"
    generated.mkdir()
    (generated / "status.md").write_text(status_page(root), encoding="utf-8")
    (generated / "execution.md").write_text(execution_table(root, runs), encoding="utf-8")
    return staging


def config(root: Path, repository: str) -> dict[str, Any]:
    """The book's configuration; with a repository's address, also the buttons that lead there."""
    content = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))
    if repository:
        content["repository"] = {"url": repository, "branch": "main", "path_to_book": ""}
        content["html"] |= {"use_repository_button": True, "use_issues_button": True}
        content["launch_buttons"] |= {
            "colab_url": "https://colab.research.google.com",
            "binderhub_url": "https://mybinder.org",
        }
    return content


def titles(path: Path) -> str:
    """The first heading of a notebook."""
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        for line in "".join(cell["source"]).splitlines():
            if cell["cell_type"] == "markdown" and line.startswith("# "):
                return line[2:].strip()
    return path.stem


def execution_table(root: Path, runs: Path) -> str:
    """Markdown table: how long each notebook took, where and when."""
    lines = ["| Page | Profile | Device | Time | Memory | Date |", "|---|---|---|---:|---:|---|"]
    for page in notebooks(root):
        path = runs / f"{page}.ipynb"
        facts = json.loads(path.read_text(encoding="utf-8"))["metadata"]["ulm"]["provenance"]
        lines.append(
            f"| [{titles(path)}](/{page}.ipynb) | {facts['parameters'].get('profile', '')} | {facts['device']} "
            f"| {duration(facts['seconds'])} | {facts['memory_gb']:.1f} GB | {facts['date']} |"
        )
    return "\n".join(lines) + "\n"


def status_page(root: Path) -> str:
    """Markdown: how much of each paper is there, then each table with its numbers and each figure with its rows."""
    recorded, built, rows = tables.recorded(root), tables.built(root), tables.status_rows(root)
    lines = [
        "| Paper | Items | Rows | of these quoted | recorded | this build |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for paper, title in PAPERS.items():
        part = rows[rows["id"].str.startswith(f"{paper}/")]
        counts = [part["id"].nunique(), len(part), *part[["quoted", "recorded", "built"]].sum()]
        lines.append(f"| {title} | " + " | ".join(map(str, counts)) + " |")
    for paper, title in PAPERS.items():
        lines += ["", f"## {title}"]
        for item in tables.inventory():
            if item["id"].startswith(f"{paper}/"):
                lines += ["", *_item(item, rows[rows["id"] == item["id"]], recorded, built)]
    return "\n".join(lines) + "\n"


def _item(item: dict[str, Any], rows: pd.DataFrame, recorded: list[Any], built: list[Any]) -> list[str]:
    own = rows[~rows["quoted"]]
    measured = own[["recorded", "built"]].any(axis=1).sum()
    name, content = item["id"].split("/")[1].replace("-", " ").capitalize(), tables.load(item["id"])
    note = ", redrawn as our own" if item["kind"] == "diagram" else ""
    head = f"{name}: {content['title']}{note} ({measured} of {len(own)})"
    lines = [f"````{{dropdown}} {head}", f"{item['what']}. Runs behind it: {item['runs']}.", ""]
    if any(not row.get("picture") for row in content["rows"]):
        html = tables.styled(item["id"], recorded, built).to_html()
        return [*lines, "```{raw} html", f'<div class="table-wide">{html}</div>', "```", "````"]
    lines += ["| Row | paper | recorded | built |", "|---|---|---|---|"]
    for row in rows.to_dict("records"):
        lines.append(
            f"| {row['row']} | " + " | ".join("✓" if row[c] else "" for c in ("paper", "recorded", "built")) + " |"
        )
    return [*lines, "````"]
