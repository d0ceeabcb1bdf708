"""Any data set written as a COCO keypoints folder, and read back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from ulm import cli, datasets
from ulm.datasets.base import Dataset, Info, Sample, check_index
from ulm.datasets.export import export
from ulm.errors import InputError


class Drawn(Dataset):
    """Six frames of two videos: a missing, a hidden and two visible landmarks, at broken places."""

    def __init__(self, landmarks: int = 4, box: bool = True):
        names = ("left eye", "right eye", "nose", "tail")[:landmarks]
        self.info = Info("drawn:test", names, ((0, 1),), ((0, 1), (1, 2)), licence="CC0", citation="nobody")
        self.split, self.size, self.box = "train", 48, box

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> Sample:
        random = torch.Generator().manual_seed(check_index(index, len(self)))
        points = torch.rand(len(self.info.landmark_names), 2, generator=random) * 48
        points[3:] = torch.nan
        item: Sample = {
            "image": torch.rand(3, 48, 48, generator=random),
            "landmarks": points,
            "visible": torch.tensor([True, False, True, False])[: len(points)],
            "subject": f"s{index // 3}",
            "video": f"v{index // 3}",
            "frame": np.int64(index % 3),
        }
        box = torch.tensor([4.25, 3.5, 40.125, 45.0]) if index else torch.full((4,), torch.nan)
        return item | ({"box": box} if self.box else {})

    @property
    def fingerprint(self) -> str:
        return "drawn"


def same(before: Dataset, after: Dataset, tolerance: float = 0.01) -> None:
    assert len(before) == len(after)
    for one, two in zip(before, after, strict=True):
        torch.testing.assert_close(two["landmarks"], one["landmarks"], rtol=0, atol=tolerance, equal_nan=True)
        known = one["landmarks"].isfinite().all(-1)
        assert torch.equal(two["visible"], one["visible"] & known)


@pytest.mark.parametrize("image_format", ["png", "jpg"])
def test_what_is_written_is_read_back(tmp_path: Path, image_format: str) -> None:
    data = Drawn()
    folder = export(data, tmp_path / "out", image_format, progress=False)
    back = datasets.load(f"coco:{folder}", "all", 48)
    same(data, back)
    assert back.info.landmark_names == data.info.landmark_names
    assert back.info.skeleton == data.info.skeleton
    assert back.info.flip_pairs == data.info.flip_pairs
    assert back.info.licence == "CC0"
    assert [back[i]["subject"] for i in range(6)] == ["s0"] * 3 + ["s1"] * 3
    assert [(back[i]["video"], back[i]["frame"]) for i in (1, 5)] == [("v0", 1), ("v1", 2)]
    torch.testing.assert_close(back[1]["box"], data[1]["box"])
    assert back[0]["box"].tolist() == [0, 0, 48, 48]
    error = (back[2]["image"] - data[2]["image"]).abs()
    assert error.max() <= 0.5001 / 255 if image_format == "png" else error.mean() < 0.02
    flags = json.loads((folder / "keypoints.json").read_text())["annotations"][0]["keypoints"][2::3]
    assert flags == [2, 1, 2, 0]
    assert not list(tmp_path.glob(".*"))


def test_scenes_and_caches_are_read_back(tmp_path: Path) -> None:
    scene = datasets.load("procedural:faces-posed", "test", 64, 4)
    same(scene, datasets.load(f"coco:{export(scene, tmp_path / 'a', progress=False)}", "all", 64))
    kept = datasets.cached(scene, tmp_path / "cache", workers=0, progress=False)
    same(kept, datasets.load(f"coco:{export(kept, tmp_path / 'b', progress=False)}", "all", 64))
    # And what was read back can be exported again.
    again = datasets.load(f"coco:{tmp_path / 'a'}", "all", 64)
    folder = export(again, tmp_path / "c", progress=False)
    same(again, datasets.load(f"coco:{folder}", "all", 64))
    assert str(tmp_path) not in (folder / "keypoints.json").read_text()


def test_a_failed_export_leaves_nothing(tmp_path: Path) -> None:
    class Broken(Drawn):
        def __getitem__(self, index: int) -> Sample:
            if index == 4:
                raise InputError("4.jpg: found a damaged file")
            return super().__getitem__(index)

    with pytest.raises(InputError, match=r"4\.jpg"):
        export(Broken(), tmp_path / "out", progress=False)
    assert not list(tmp_path.iterdir())


def test_what_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found format 'gif'"):
        export(Drawn(), tmp_path / "out", "gif")
    with pytest.raises(InputError, match="found no landmarks in drawn:test"):
        export(Drawn(landmarks=0), tmp_path / "out")
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="found other files"):
        export(Drawn(), tmp_path)
    (tmp_path / "empty").mkdir()
    export(Drawn(box=False), tmp_path / "empty", progress=False)


def ulm(*arguments: Any) -> Any:
    return CliRunner().invoke(cli.app, [str(a) for a in arguments])


def test_the_command(tmp_path: Path) -> None:
    result = ulm(
        *("data", "export", "procedural:faces", tmp_path / "out", "--split", "test", "--size", 32, "--limit", 3),
        *("--format", "jpg"),
    )
    assert result.exit_code == 0, result.output
    assert result.stdout == f"coco:{tmp_path / 'out'}\n"
    same(datasets.load("procedural:faces", "test", 32, 3), datasets.load(f"coco:{tmp_path / 'out'}", "all", 32))
    report = json.loads(ulm("data", "check", f"coco:{tmp_path / 'out'}", "--json").stdout)
    assert report["items"] == 3
    again = ulm("data", "export", "procedural:faces", tmp_path / "out", "--limit", 3)
    assert again.exit_code == 2
    assert "found other files" in again.stderr
    assert "Example" in ulm("data", "export", "--help").stdout
