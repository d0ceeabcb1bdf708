"""The papers' numbers as data, and tables with the columns paper | recorded | this run.

Three sources never share a cell: what the paper prints (``ulm/paper_numbers/*.json``), what was recorded once and is
committed (``results/*.json``) and what this build measured (``_build/numbers``). What nobody measured is an empty
cell. A measurement is a JSON object::

    {"id": "imm/table-1", "row": "selfsup K=10", "column": "MAFL", "value": 5.12, "unit": "%",
     "provenance": {"dataset": "procedural:faces", "fingerprint": ..., "profile": ..., "commit": ..., ...}}

or, for a figure, ``{"id": ..., "row": "picture", "picture": "relative/path.png", "provenance": {...}}``. Optional:
``std``; a picture's column and value are not looked at. Rows and columns are the paper's; the three baselines of every
table (``BASELINES``) are known everywhere, and what is the book's own addition has a name that begins with ``ours: ``.
"""

from __future__ import annotations

import html
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import pandas as pd
from pandas.io.formats.style import Styler

from ulm import runs
from ulm.datasets.hashing import digest
from ulm.errors import InputError

PAPERS = ("imm", "inter-intra", "stable-keypoints", "d-uld")
BASELINES = ("mean shape", "untrained network", "supervised, same labels")
OURS = "ours: "
SOURCES = ("paper", "recorded", "this run")
Record = dict[str, Any]
Records = Sequence[Record] | str | Path | None


@cache
def _data() -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """(items by id, inventory by id), read once from the package."""
    folder = resources.files("ulm") / "paper_numbers"
    items: dict[str, dict[str, Any]] = {}
    for name in (*PAPERS, "book"):
        items |= json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    entries = json.loads((folder / "inventory.json").read_text(encoding="utf-8"))
    return items, {entry["id"]: entry for entry in entries}


def inventory() -> list[dict[str, Any]]:
    """Every table and figure of the four papers: ``id``, ``what``, ``runs``, ``kind``, ``rows`` (names)."""
    return [dict(entry) for entry in _data()[1].values()]


def load(id: str) -> dict[str, Any]:
    """One item as the paper has it: title, metric, unit, columns, rows, note (and id, kind, what, runs).

    Raises:
        InputError: The id is unknown; the message lists those that exist.
    """
    items, entries = _data()
    if id not in items:
        raise InputError(f"found the id {id!r}, expected one of: {', '.join(items)}")
    entry = {key: value for key, value in entries.get(id, {"kind": "table"}).items() if key != "rows"}
    return json.loads(json.dumps({"id": id, **entry, **items[id]}))


# ------------------------------------------------------------------------------------------ measurements


def validate(record: Mapping[str, Any], where: str = "record") -> Record:
    """Return the record as a dict, or say what is wrong with it.

    Raises:
        InputError: Unknown id, row or column (the known ones are listed), a value that is not a finite number,
            neither value nor picture, or a value without the data set it was measured on.
    """
    if not isinstance(record, Mapping):
        raise InputError(f"{where}: found {type(record).__name__}, expected an object with id, row, column, value")
    item = load(str(record.get("id")))
    names = {"row": [row["row"] for row in item["rows"]], "column": item["columns"]}
    for key, known in names.items():
        name = record.get(key)
        if item.get("open") or str(name).startswith(OURS) or name in known or (key == "row" and name in BASELINES):
            continue
        if key == "column" and record.get("picture"):
            continue
        expected = ", ".join([*known, *(BASELINES if key == "row" else ()), f"'{OURS}...'"])
        raise InputError(f"{where}: found the {key} {name!r} in {item['id']}, expected one of: {expected}")
    if record.get("picture"):
        return dict(record)
    value = record.get("value")
    for number in (value, record.get("std")):
        numeric = isinstance(number, int | float) and not isinstance(number, bool)
        if number is not None and not (numeric and math.isfinite(number)):
            raise InputError(f"{where}: found the value {number!r}, expected a finite number or null")
    if "value" not in record:
        raise InputError(f"{where}: found neither a value nor a picture; give one of them")
    if value is not None and not (record.get("provenance") or {}).get("dataset"):
        raise InputError(f"{where}: found a value without provenance; say at least the data set it was measured on")
    return dict(record)


def measurements(path: str | Path) -> list[Record]:
    """Read and validate the records of a JSON file, or of all ``*.json`` files in a folder and below it.

    A file holds a list of records. A file that holds an object (a curve, say) is no list of measurements and is
    passed over. A folder that does not exist holds nothing.

    Raises:
        InputError: A file is missing or no JSON, or a record is wrong; the message names the file and the place.
    """
    path = Path(path)
    single = path.suffix == ".json" and not path.is_dir()
    files = [path] if single else sorted(path.rglob("*.json"))
    return [record for file in files for record in _read(file)]


def _read(file: Path) -> list[Record]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{file}: found no readable JSON ({error}); write it again or remove it") from error
    if not isinstance(content, list):
        return []
    return [validate(record, f"{file.name}, record {index}") for index, record in enumerate(content)]


def _records(source: Records, id: str) -> list[Record]:
    if source is None:
        return []
    known = measurements(source) if isinstance(source, str | Path) else [validate(record) for record in source]
    return [record for record in known if record["id"] == id]


# ------------------------------------------------------------------------------------------ one table


@dataclass
class _Cell:
    value: float
    std: float | None = None
    standin: bool = False
    provenance: dict[str, Any] = field(default_factory=dict)


def _own(item: Mapping[str, Any], row: str, column: str) -> str | None:
    """The data set that the paper used in a cell, as the first part of a ``ulm.datasets`` name."""
    for start, dataset in item.get("row_datasets", {}).items():
        if row.startswith(start):
            return dataset
    return item.get("datasets", {}).get(column)


def _is_standin(item: Mapping[str, Any], record: Record) -> bool:
    own = _own(item, str(record["row"]), str(record.get("column")))
    return own is not None and str(record["provenance"]["dataset"]).split(":")[0] != own


def _measured(item: Mapping[str, Any], records: Iterable[Record]) -> dict[tuple[str, str], _Cell]:
    """The best record of each cell: on the paper's own data before a stand-in, then the latest."""
    best: dict[tuple[str, str], tuple[tuple[bool, str, int], _Cell]] = {}
    for order, record in enumerate(records):
        if record.get("picture") or record.get("value") is None:
            continue
        standin, provenance = _is_standin(item, record), dict(record["provenance"])
        rank = (not standin, str(provenance.get("date", "")), order)
        key = (record["row"], record["column"])
        if key not in best or rank > best[key][0]:
            best[key] = (rank, _Cell(float(record["value"]), record.get("std"), standin, provenance))
    return {key: cell for key, (_, cell) in best.items()}


@dataclass
class _Grid:
    item: dict[str, Any]
    rows: list[str]
    columns: list[tuple[str, str]]
    cells: dict[tuple[str, str, str], _Cell]


def _grid(id: str, recorded: Records, built: Records) -> _Grid:
    item = load(id)
    paper_rows = [row for row in item["rows"] if not row.get("picture")]
    if not paper_rows and not item.get("open"):
        raise InputError(f"{id} is a picture: it has no numbers to tabulate")
    cells: dict[tuple[str, str, str], _Cell] = {}
    for row in paper_rows:
        for column, value in row["values"].items():
            if value is not None:
                cells[row["row"], column, "paper"] = _Cell(value, row.get("std", {}).get(column))
    for source, records in (("recorded", recorded), ("this run", built)):
        for (name, column), cell in _measured(item, _records(records, id)).items():
            cells[name, column, source] = cell
    rows = _union([row["row"] for row in paper_rows], BASELINES, (row for row, _, _ in cells))
    rows = [row for row in rows if row not in BASELINES or any(key[0] == row for key in cells)]
    names = _union(item["columns"], (), (column for _, column, _ in cells))
    columns = [(name, source) for name in names for source in _sources(item, name)]
    return _Grid(item, rows, columns, cells)


def _union(first: Iterable[str], second: Iterable[str], third: Iterable[str]) -> list[str]:
    return list(dict.fromkeys([*first, *second, *third]))


def _sources(item: Mapping[str, Any], column: str) -> tuple[str, ...]:
    """Quoted columns have the paper's number only, the book's own columns have none of the paper."""
    if column in item.get("quoted_columns", ()):
        return ("paper",)
    paper = column in item["columns"] and not item.get("open")
    return SOURCES if paper else SOURCES[1:]


def table(id: str, recorded: Records = None, built: Records = None) -> pd.DataFrame:
    """The numbers of one item, one row a row of the paper.

    Args:
        id: An id of :func:`inventory`, or ``book/...``.
        recorded: Records, or the file or folder that holds them, of measurements made once and committed.
        built: The same for this build.

    Returns:
        float64 frame, NaN where nothing was measured. Columns have two levels: the paper's column and the source
        (``paper``, ``recorded``, ``this run``). Where several records fit one cell, the paper's own data set goes
        before a stand-in, then the latest date. ``attrs["standin"]`` lists the cells measured on a stand-in.

    Raises:
        InputError: Unknown id, an item without numbers, or a bad record.
    """
    grid = _grid(id, recorded, built)
    frame = pd.DataFrame(
        [[_value(grid.cells.get((row, *column))) for column in grid.columns] for row in grid.rows],
        index=pd.Index(grid.rows, name="row"),
        columns=pd.MultiIndex.from_tuples(grid.columns, names=["column", "source"]),
        dtype="float64",
    )
    standin = [list(key) for key, cell in grid.cells.items() if cell.standin]
    frame.attrs = {"id": id, "title": grid.item["title"], "unit": grid.item["unit"], "standin": standin}
    return frame


def _value(cell: _Cell | None) -> float:
    return math.nan if cell is None else cell.value


def styled(id: str, recorded: Records = None, built: Records = None) -> Styler:
    """The same table for a notebook: quoted rows are marked †, values measured on a stand-in ‡.

    Hovering over a measured value shows its provenance; the caption lists each provenance once under a short hash.
    """
    grid = _grid(id, recorded, built)
    quoted = {row["row"] for row in grid.item["rows"] if row.get("quoted")}
    labels = [f"{row} †" if row in quoted else row for row in grid.rows]
    heads = [
        (f"{name} †" if name in grid.item.get("quoted_columns", ()) else name, source) for name, source in grid.columns
    ]
    axes: dict[str, Any] = {
        "index": pd.Index(labels, name=None),
        "columns": pd.MultiIndex.from_tuples(heads, names=[None, None]),
    }
    keys = [[(row, *column) for column in grid.columns] for row in grid.rows]
    text = pd.DataFrame([[_text(grid, key) for key in line] for line in keys], **axes)
    tips = pd.DataFrame([[_tip(grid.cells.get(key)) for key in line] for line in keys], **axes)
    style = Styler(text, uuid=f"ulm-{id.replace('/', '-')}", caption=_caption(grid, bool(quoted)))
    style = style.format(escape="html").format_index(escape="html").format_index(escape="html", axis=1)
    style = style.set_tooltips(tips, as_title_attribute=True)
    return style.set_table_styles(
        [
            {"selector": "caption", "props": "caption-side: bottom; text-align: left; font-size: 85%;"},
            {"selector": "td", "props": "text-align: right; font-variant-numeric: tabular-nums;"},
            {"selector": "th.row_heading", "props": "text-align: left;"},
        ]
    )


def _text(grid: _Grid, key: tuple[str, str, str]) -> str:
    cell = grid.cells.get(key)
    if cell is None:
        return ""
    digits = grid.item.get("digits", 2)
    places = digits.get(key[1], 2) if isinstance(digits, dict) else digits
    shown = f"{cell.value:.{places}f}" + (f" ± {cell.std:.{places}f}" if cell.std is not None else "")
    return shown + (" ‡" if cell.standin else "")


def _short(provenance: Mapping[str, Any]) -> str:
    return digest({key: provenance[key] for key in sorted(provenance) if key != "seconds"})[:6]


def _tip(cell: _Cell | None) -> str:
    if cell is None or not cell.provenance:
        return ""
    return html.escape(f"{_short(cell.provenance)}: {_words(cell.provenance)}", quote=True)


def _words(provenance: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in provenance.items() if value not in (None, "", [], {}))


def _caption(grid: _Grid, quoted: bool) -> str:
    item, parts = grid.item, []
    metric = "; ".join(text for text in (item["metric"], _units(item)) if text)
    parts.append(f"{item['title']}. {metric[0].upper()}{metric[1:]}." if metric else f"{item['title']}.")
    if quoted or item.get("quoted_columns"):
        parts.append("† quoted by the paper from others.")
    used = [cell for cell in grid.cells.values() if cell.provenance]
    if any(cell.standin for cell in used):
        names = sorted({str(cell.provenance["dataset"]) for cell in used if cell.standin})
        parts.append(f"‡ measured on a stand-in, not on the paper's data: {', '.join(names)}.")
    if item.get("note"):
        parts.append(item["note"])
    shorts: dict[str, set[str]] = {}
    for cell in used:
        shorts.setdefault(_brief(cell.provenance), set()).add(_short(cell.provenance))
    if shorts:
        lines = sorted(f"[{', '.join(sorted(names))}] {words}" for words, names in shorts.items())
        parts.append("Provenance: " + "; ".join(lines) + ".")
    return html.escape(" ".join(parts))


def _units(item: Mapping[str, Any]) -> str:
    if item["unit"]:
        return f"in {item['unit']}"
    units = item.get("units", {})
    return ", ".join(f"{column}: {unit}" for column, unit in units.items())


def _brief(provenance: Mapping[str, Any]) -> str:
    keys = ("dataset", "fingerprint", "n_fit", "n_test", "seeds", "profile", "device", "commit", "date")
    return _words({key: provenance.get(key) for key in keys})


# ------------------------------------------------------------------------------------------ done and missing


def recorded(root: str | Path = ".") -> list[Record]:
    """The committed records, ``root/results/*.json``."""
    return [record for file in sorted((Path(root) / "results").glob("*.json")) for record in _read(file)]


def built(root: str | Path = ".") -> list[Record]:
    """The records of this build: all files in ``$ULM_NUMBERS``, else ``root/_build/numbers``."""
    return measurements(Path(root) / runs.numbers_folder())


def status_rows(root: str | Path = ".") -> pd.DataFrame:
    """Every row of every item: ``id, row, quoted, paper, recorded, built``; the last three are true or false.

    A row counts as recorded or built when at least one of its cells has a value, or its picture was drawn.
    """
    have = [
        {
            (record["id"], record["row"])
            for record in records
            if record.get("value") is not None or record.get("picture")
        }
        for records in (recorded(root), built(root))
    ]
    items, entries = _data()
    lines = [
        {
            "id": id,
            "row": row["row"],
            "quoted": bool(row.get("quoted")),
            "paper": bool(row.get("picture")) or any(value is not None for value in row["values"].values()),
            "recorded": (id, row["row"]) in have[0],
            "built": (id, row["row"]) in have[1],
        }
        for id in entries
        for row in items[id]["rows"]
    ]
    return pd.DataFrame(lines)


def status(root: str | Path = ".") -> list[dict[str, Any]]:
    """For each item of the inventory: ``id``, ``rows``, and how many rows have a ``paper``, ``recorded``, ``built``.

    ``quoted`` counts the rows that the paper takes from others. Made from files alone: the package's numbers,
    ``root/results/*.json`` and this build's numbers.

    Raises:
        InputError: A file of numbers is broken or names an unknown id, row or column.
    """
    frame = status_rows(root)
    counts = frame.groupby("id", sort=False)[["quoted", "paper", "recorded", "built"]].sum()
    sizes = frame.groupby("id", sort=False).size()
    return [
        {"id": str(id), "rows": int(sizes[id]), **{name: int(number) for name, number in line.items()}}
        for id, line in counts.iterrows()
    ]
