"""Model folders are checked before anything in them is loaded; cards say how a model was made."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from ulm import zoo
from ulm.errors import InputError


def write_model(folder: Path, **changes: Any) -> Path:
    """A model folder as save_pretrained writes it."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = save({"a": torch.arange(4.0)}, {"format": "pt"})
    config = {
        "method": "imm",
        "parameters": {"n_landmarks": 10, "image_size": 64},
        "networks": ["pose"],
        "sha256": zoo.checksum(weights),
        "card": {"command": "ulm fit --data procedural:faces --out m", "data": "procedural:faces", "seconds": 3.5},
    }
    (folder / "model.safetensors").write_bytes(weights)
    (folder / "config.json").write_text(json.dumps(config | changes))
    return folder


def test_a_sound_folder_passes(tmp_path: Path) -> None:
    config = zoo.verify(write_model(tmp_path / "m"))
    assert config["method"] == "imm"
    assert config["sha256"] == zoo.checksum(tmp_path / "m" / "model.safetensors")


def _flip_a_bit(folder: Path) -> None:
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "model.safetensors").write_bytes(data)


def _zip_as_safetensors(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with zipfile.ZipFile(folder / "model.safetensors", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_flip_a_bit, "found SHA-256"),
        (lambda f: (f / "model.safetensors").unlink(), r"found no model\.safetensors"),
        (lambda f: (f / "config.json").unlink(), r"found no config\.json"),
        (lambda f: (f / "config.json").write_text("{"), "found broken JSON"),
        (lambda f: (f / "config.json").write_text('{"_class_name": "UNet"}'), "found no method, parameters"),
        (lambda f: (f / "model.pt").write_bytes(b""), r"model\.pt: found a pickle"),
        (lambda f: (f / "model.bin").write_bytes(b"x"), r"model\.bin: found a pickle"),
        (lambda f: (f / "notes.txt").write_bytes(pickle.dumps({"a": [1]})), r"notes\.txt: found a pickle"),
        (lambda f: (f / "model.safetensors").write_bytes(pickle.dumps([1], protocol=2)), "found a pickle"),
        (_zip_as_safetensors, "found a pickle"),
    ],
)
def test_an_unsound_folder_is_refused(tmp_path: Path, change: Callable[[Path], Any], message: str) -> None:
    folder = write_model(tmp_path / "m")
    change(folder)
    with pytest.raises(InputError, match=message):
        zoo.verify(folder)


def test_no_length_of_a_safetensors_header_looks_like_a_pickle(tmp_path: Path) -> None:
    # The file begins with the header's length: 0x0280 is also how a pickle of protocol 2 begins.
    header = json.dumps({"__metadata__": {"a": ""}}).encode()
    for length in range(0x0280, 0x0580, 0x100):
        padded = header.ljust(length)
        (tmp_path / "a.safetensors").write_bytes(length.to_bytes(8, "little") + padded)
        assert not zoo._looks_pickled(tmp_path / "a.safetensors")


def test_names_paths_and_the_list(tmp_path: Path) -> None:
    write_model(tmp_path / "imm-faces-k10")
    (tmp_path / "__pycache__").mkdir()
    assert zoo.names(tmp_path) == ["imm-faces-k10"]
    assert zoo.path("imm-faces-k10", tmp_path) == tmp_path / "imm-faces-k10"
    (row,) = zoo.list(tmp_path)
    assert (row["name"], row["method"], row["landmarks"], row["image_size"]) == ("imm-faces-k10", "imm", 10, 64)
    assert row["data"] == "procedural:faces"
    with pytest.raises(InputError, match="one of imm-faces-k10"):
        zoo.path("imm-face-k10", tmp_path)
    with pytest.raises(InputError, match="found no model folder"):
        zoo.path("../secrets", tmp_path)


def test_the_card_says_how_the_model_was_made_and_measured(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m")
    zoo.add_measurement(folder, {"data": "procedural:faces", "labels": 300, "forward_nme": 9.0})
    zoo.add_measurement(folder, {"data": "procedural:faces", "labels": 10, "forward_nme": 12.0})
    zoo.add_measurement(folder, {"data": "procedural:faces", "labels": 300, "forward_nme": 8.5})
    assert [m["forward_nme"] for m in zoo.card("m", tmp_path)["measured"]] == [12.0, 8.5]
    text = (folder / "card.md").read_text()
    assert "ulm fit --data procedural:faces --out m" in text
    assert "| forward_nme | 8.5 |" in text
    assert "| n_landmarks | 10 |" in text
    zoo.verify(folder)


@pytest.mark.parametrize("name", zoo.names())
def test_every_shipped_model_is_sound_small_and_has_a_card(name: str) -> None:
    folder = zoo.path(name)
    config = zoo.verify(folder)
    assert sum(file.stat().st_size for file in folder.rglob("*")) < (60e6 if name == "pocket" else 20e6)
    assert config["card"]["command"].startswith("ulm ")
    assert {"data", "fingerprint", "seconds"} <= set(config["card"])
    assert (folder / "card.md").read_text() == zoo.card_text(folder)
