"""The papers' numbers, and that paper, recorded and built values never share a cell."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ulm import runs, tables
from ulm.errors import InputError

ITEMS = {
    "imm": [
        "figure-1",
        "figure-2",
        "figure-3-left",
        "figure-3-right",
        "figure-4",
        "figure-5",
        "figure-6",
        "figure-7",
        "table-1",
        "table-2-left",
        "table-2-right",
    ],
    "inter-intra": ["figure-1", "figure-2", "table-1", "table-2", "table-3"],
    "stable-keypoints": [
        "figure-1",
        "figure-2",
        "figure-3",
        "figure-4",
        "figure-5",
        "table-1",
        "table-2",
        "table-3",
        "table-4",
        "table-5",
        "section-4.3",
    ],
    "d-uld": [
        "figure-1",
        "figure-2",
        "figure-3",
        "figure-4",
        "figure-5",
        "figure-6",
        "figure-7",
        "figure-8",
        "table-1",
        "table-2",
        "table-3",
    ],
}
IDS = [f"{paper}/{item}" for paper, items in ITEMS.items() for item in items]

NUMERIC = [i for i in IDS if any(row["values"] for row in tables.load(i)["rows"])]

# Read off the papers a second time, by eye.
SAMPLE = [
    ("imm/table-1", "selfsup K=30", "MAFL", 2.58),
    ("imm/table-1", "sup K=50", "AFLW", 6.35),
    ("imm/table-1", "VoxCeleb selfsup K=30 with bias", "MAFL", 3.63),
    ("imm/table-1", "Zhang K=30 without equivariance", "MAFL", 8.42),
    ("imm/table-1", "RCPR", "AFLW", 11.60),
    ("imm/table-2-left", "fc d=60", "MAFL", 28.96),
    ("imm/table-2-right", "adv+l2", "MAFL", 2.80),
    ("imm/figure-3-right", "n=5", "selfsup K=30", 8.16),
    ("imm/figure-3-right", "n=10", "Thewlis [45]", 8.49),
    ("inter-intra/table-1", "+cycle K=10", "AFLW", 6.28),
    ("inter-intra/table-1", "all K=50", "MAFL", 2.85),
    ("inter-intra/table-2", "n=500", "all K=10", 3.23),
    ("inter-intra/table-2", "n=1", "Sanchez K=10", 18.70),
    ("inter-intra/table-3", "L_R only K=10", "AFLW", 14.98),
    ("stable-keypoints/table-1", "ours", "wild K=8", 4.35),
    ("stable-keypoints/table-2", "ours", "CUB-002 K=4", 11.1),
    ("stable-keypoints/table-3", "ours", "Tai-Chi-HD relative K=10", 7.02),
    ("stable-keypoints/table-3", "AutoLink", "Human3.6M unaligned K=16", 7.59),
    ("stable-keypoints/table-4", "without equivariance", "CUB-all K=4", 22.2),
    ("stable-keypoints/table-5", "ours", "Tai-Chi-HD to Human3.6M K=10", 4.88),
    ("stable-keypoints/section-4.3", "100 training images", "wild K=8", 5.33),
    ("d-uld/table-1", "D-ULD++ K=10", "LS3D F", 2.12),
    ("d-uld/table-1", "ZeroShot K=10", "MAFL B", 3.27),
    ("d-uld/table-2", "ZeroShot", "MAFL B", 3.98),
    ("d-uld/table-3", "D-ULD++ Q=10 K=30", "MAFL CH", 392.6),
    ("d-uld/figure-8", "MAFL Q=30", "K=30 F", 2.03),
]


def measured(row: str = "selfsup K=10", column: str = "MAFL", value: Any = 5.12, **more: Any) -> dict[str, Any]:
    provenance = {"dataset": "procedural:faces", "commit": "abc", "date": "2025-01-01"}
    return {"id": "imm/table-1", "row": row, "column": column, "value": value, "provenance": provenance} | more


@pytest.mark.parametrize(("id", "row", "column", "value"), SAMPLE)
def test_numbers_of_the_papers(id, row, column, value):
    assert tables.table(id).loc[row, (column, "paper")] == value


def test_every_item_of_the_inventory_is_there():
    assert [entry["id"] for entry in tables.inventory()] == IDS
    for entry in tables.inventory():
        item = tables.load(entry["id"])
        assert entry["kind"] in {"table", "figure", "diagram", "section"}
        assert [row["row"] for row in item["rows"]] == entry["rows"]
        assert len(set(entry["rows"])) == len(entry["rows"]) >= 1
        for row in item["rows"]:
            assert set(row["values"]) == (set() if row.get("picture") else set(item["columns"]))
            assert all(value is None or math.isfinite(value) for value in row["values"].values())


def test_row_counts_and_quoted_rows():
    status = {entry["id"]: entry for entry in tables.status("/nonexistent")}
    assert (status["imm/table-1"]["rows"], status["imm/table-1"]["quoted"]) == (23, 14)
    assert status["inter-intra/table-1"]["rows"] == 21
    assert (status["d-uld/table-1"]["rows"], status["d-uld/table-1"]["quoted"]) == (8, 5)
    assert status["imm/figure-5"] == {
        "id": "imm/figure-5",
        "rows": 1,
        "quoted": 0,
        "paper": 1,
        "recorded": 0,
        "built": 0,
    }
    # The table inside Figure 4 is a picture: two rows without a paper's number.
    assert (status["imm/figure-4"]["rows"], status["imm/figure-4"]["paper"]) == (3, 1)


def test_what_is_not_measured_is_empty():
    for id in NUMERIC:
        frame = tables.table(id)
        others = frame.loc[:, frame.columns.get_level_values("source") != "paper"]
        assert others.isna().all(axis=None)
    assert np.isnan(tables.table("imm/table-1").loc["VoxCeleb selfsup K=30 with bias", ("AFLW", "paper")])
    html = tables.styled("imm/table-1").to_html()
    assert "nan" not in html.lower()
    assert "None" not in html


@pytest.mark.parametrize("id", NUMERIC)
def test_every_table_can_be_drawn(id):
    html = tables.styled(id).to_html()
    assert f"T_ulm-{id.replace('/', '-')}" in html
    assert html == tables.styled(id).to_html()


def test_sources_never_share_a_cell():
    recorded, built = [measured(value=5.0)], [measured(value=6.0), measured("selfsup K=30", "AFLW", 7.0)]
    frame = tables.table("imm/table-1", recorded, built)
    assert frame.loc["selfsup K=10", "MAFL"].to_dict() == {"paper": 3.19, "recorded": 5.0, "this run": 6.0}
    line = frame.loc["selfsup K=30", "AFLW"]
    assert (line["paper"], line["this run"]) == (6.31, 7.0)
    assert np.isnan(line["recorded"])
    plain = tables.table("imm/table-1")
    assert frame.xs("paper", axis=1, level="source").equals(plain.xs("paper", axis=1, level="source"))
    assert set(frame.columns.get_level_values("source")) == set(tables.SOURCES)
    assert tables.table("imm/table-1", recorded).xs("this run", axis=1, level="source").isna().all(axis=None)


def test_quoted_rows_stand_ins_and_provenance_are_marked():
    html = tables.styled("imm/table-1", built=[measured(std=0.123)]).to_html()
    assert "RCPR †" in html
    assert "selfsup K=10 †" not in html
    assert "5.12 ± 0.12 ‡" in html
    assert "stand-in" in html
    assert "procedural:faces" in html
    assert 'title="' in html
    own = measured(provenance={"dataset": "mafl:/data", "date": "2025-01-01"})
    html = tables.styled("imm/table-1", built=[own]).to_html()
    assert "5.12</td>" in html
    assert "‡" not in html


def test_quoted_columns_have_no_room_for_measurements():
    frame = tables.table("inter-intra/table-2")
    assert frame["Sanchez K=10"].columns.tolist() == ["paper"]
    assert frame["all K=10"].columns.tolist() == list(tables.SOURCES)


def test_names_and_values_are_escaped():
    record = measured("ours: <b>", provenance={"dataset": "procedural:<script>"})
    html = tables.styled("imm/table-1", built=[record]).to_html()
    assert "<b>" not in html
    assert "<script>" not in html


def test_the_papers_own_data_go_before_a_stand_in_then_the_latest():
    old = measured(value=1.0, provenance={"dataset": "mafl:/data", "date": "2024-01-01"})
    new = measured(value=2.0, provenance={"dataset": "mafl:/data", "date": "2025-01-01"})
    standin = measured(value=3.0, provenance={"dataset": "procedural:faces", "date": "2026-01-01"})
    for records in ([old, new, standin], [standin, new, old]):
        frame = tables.table("imm/table-1", records)
        assert frame.loc["selfsup K=10", ("MAFL", "recorded")] == 2.0
        assert frame.attrs["standin"] == []
    assert tables.table("imm/table-1", [standin]).attrs["standin"] == [["selfsup K=10", "MAFL", "recorded"]]


def test_baselines_and_our_own_rows_come_after_the_papers():
    records = [measured("ours: with equivariance"), measured("mean shape"), measured("selfsup K=10", "ours: YTF")]
    frame = tables.table("imm/table-1", built=records)
    assert frame.index[-2:].tolist() == ["mean shape", "ours: with equivariance"]
    assert frame["ours: YTF"].columns.tolist() == ["recorded", "this run"]
    assert "untrained network" not in frame.index
    open_item = tables.table("book/faces-ytf", [measured("IMM K=10", "forward", 9.0, id="book/faces-ytf")])
    assert open_item.loc["IMM K=10", ("forward", "recorded")] == 9.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": "imm/table-3"}, "imm/table-1, imm/table-2-left"),
        ({"row": "selfsup K=11"}, "selfsup K=10"),
        ({"column": "CelebA"}, "MAFL, AFLW"),
        ({"value": "5.1"}, "finite number"),
        ({"value": float("nan")}, "finite number"),
        ({"value": True}, "finite number"),
        ({"std": float("inf")}, "finite number"),
        ({"provenance": {}}, "provenance"),
    ],
)
def test_bad_records(change, message):
    with pytest.raises(InputError, match=message):
        tables.table("imm/table-1", [measured(**change)])


def test_records_without_value_or_shape():
    record = measured()
    del record["value"]
    with pytest.raises(InputError, match="neither a value nor a picture"):
        tables.validate(record)
    with pytest.raises(InputError, match="expected an object"):
        tables.validate(["imm/table-1"])
    assert np.isnan(tables.table("imm/table-1", [measured(value=None)]).loc["selfsup K=10", ("MAFL", "recorded")])


def test_pictures_have_no_table():
    with pytest.raises(InputError, match="picture"):
        tables.table("imm/figure-5")
    with pytest.raises(InputError, match="imm/figure-5"):
        tables.load("imm/figure-50")


def test_status_is_made_from_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("ULM_NUMBERS", raising=False)
    runs.record([measured(), measured(column="AFLW"), measured("mean shape")], tmp_path / "results" / "faces.json")
    (tmp_path / "results" / "curve.json").write_text('{"steps": [1, 2]}')
    picture = {"id": "imm/figure-5", "row": "picture", "column": "", "picture": "figures/a.png", "provenance": {}}
    runs.record([picture, measured("selfsup K=30")], tmp_path / "_build" / "numbers" / "deep" / "imm.json")
    status = {entry["id"]: entry for entry in tables.status(tmp_path)}
    assert list(status) == IDS
    assert (status["imm/table-1"]["recorded"], status["imm/table-1"]["built"]) == (1, 1)
    assert (status["imm/figure-5"]["recorded"], status["imm/figure-5"]["built"]) == (0, 1)
    json.dumps(tables.status(tmp_path))
    rows = tables.status_rows(tmp_path).set_index(["id", "row"])
    assert rows.loc[("imm/table-1", "selfsup K=10"), ["paper", "recorded", "built"]].tolist() == [True, True, False]
    frame = tables.table("imm/table-1", tmp_path / "results", tmp_path / "_build" / "numbers")
    assert frame.loc["selfsup K=30", ("MAFL", "this run")] == 5.12
    monkeypatch.setenv("ULM_NUMBERS", str(tmp_path / "elsewhere"))
    assert tables.built(tmp_path) == []


def test_broken_files_are_named(tmp_path: Path):
    (tmp_path / "torn.json").write_text('[{"id": "imm/')
    with pytest.raises(InputError, match=r"torn\.json"):
        tables.measurements(tmp_path)
    with pytest.raises(InputError, match=r"gone\.json"):
        tables.measurements(tmp_path / "gone.json")
    assert tables.measurements(tmp_path / "nowhere") == []
    (tmp_path / "torn.json").write_text(json.dumps([measured(), measured("selfsup")]))
    with pytest.raises(InputError, match=r"torn\.json, record 1"):
        tables.measurements(tmp_path)
