"""The command line: results on standard output, one clear line and exit code 2 for bad input."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

from ulm import cli
from ulm.datasets import coco

pytestmark = pytest.mark.filterwarnings("ignore:IMM:RuntimeWarning")  # six steps of training teach nothing

# A model of some hundred thousand weights, trained for a few steps.
TINY = ["--profile", "smoke", "-p", "convention", "release", "-p", "loss", "l2", "--landmarks", "4", "--steps", "6"]


def ulm(*arguments: Any) -> Result:
    return CliRunner().invoke(cli.app, [str(a) for a in arguments])


def fails(result: Result, *words: str) -> None:
    """Exit code 2, one line of error, no traceback, nothing on standard output."""
    assert result.exit_code == 2, result.output
    lines = [line for line in result.stderr.replace("\r", "\n").splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, result.stderr
    assert "Traceback" not in result.output
    assert result.stdout == ""
    for word in words:
        assert word in lines[0]


@pytest.fixture(scope="module", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ULM_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("COLUMNS", "100")
        yield


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty images with a bright blob, labelled at the blob and at three places round it."""
    root = tmp_path_factory.mktemp("faces")
    rng = np.random.default_rng(0)
    landmarks = []
    (root / "images").mkdir()
    for i in range(40):
        x, y = rng.uniform(12, 28, 2)
        rows, columns = np.mgrid[:40, :40] + 0.5
        blob = 220 * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 18) + rng.uniform(0, 30, (40, 40))
        Image.fromarray(np.stack([blob] * 3, -1).astype(np.uint8)).save(root / "images" / f"{i:02d}.png")
        landmarks.append(np.array([[x, y], [x + 5, y], [x, y + 5], [x - 5, y - 5]]))
    names = [f"{i:02d}.png" for i in range(40)]
    content = coco.predictions_to_coco(["a", "b", "c", "d"], landmarks, names, [(40, 40)] * 40)
    for image in content["images"]:
        image |= {"video": f"v{image['id'] // 4}", "frame": image["id"] % 4}
    (root / "keypoints.json").write_text(json.dumps(content))
    return root


@pytest.fixture(scope="module")
def model(faces: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("models") / "tiny"
    result = ulm("fit", "--data", f"coco:{faces}", "--out", out, *TINY)
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    return out


# --- help and start-up ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        "",
        "book",
        "run",
        "fit",
        "predict",
        "evaluate",
        "status",
        "data list",
        "data check",
        "data get",
        "data export",
        "zoo list",
        "zoo card",
        "zoo train",
    ],
)
def test_every_command_has_help_with_an_example(command: str) -> None:
    result = ulm(*command.split(), "--help")
    assert result.exit_code == 0
    assert "Example" in result.stdout


def test_help_does_not_import_torch() -> None:
    lines = ["import sys", "from ulm.cli import app", "try: app(['--help'])", "except SystemExit: pass"]
    code = "\n".join([*lines, "assert 'torch' not in sys.modules"])
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def test_usage_errors_exit_with_two(tmp_path: Path) -> None:
    assert ulm("fit").exit_code == 2
    assert ulm("nothing").exit_code == 2
    assert ulm("fit", "--data", "folder:x", "--out", tmp_path, "--steps", "many").exit_code == 2


# --- fit --------------------------------------------------------------------------------------------------------------


def test_fit_writes_a_model_with_a_card(model: Path, faces: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    assert sorted(p.name for p in model.parent.iterdir()) == ["tiny"]
    assert sorted(p.name for p in model.iterdir()) == ["card.md", "config.json", "model.safetensors"]
    assert config["parameters"]["n_landmarks"] == 4
    assert config["card"]["data"] == f"coco:{faces}"
    assert config["card"]["split"] == "train"
    assert config["card"]["command"].startswith("ulm fit --method imm")
    assert config["card"]["command"] in (model / "card.md").read_text()


def test_fit_again_does_nothing_and_never_replaces_unasked(model: Path, faces: Path) -> None:
    before = (model / "model.safetensors").read_bytes()
    again = ulm("fit", "--data", f"coco:{faces}", "--out", model, *TINY)
    assert again.exit_code == 0
    assert "already holds this model" in again.stderr
    fails(ulm("fit", "--data", f"coco:{faces}", "--out", model, *TINY, "--seed", 1), "found another model")
    fails(ulm("fit", "--data", f"coco:{faces}", "--out", faces, *TINY), "found other files")
    assert (model / "model.safetensors").read_bytes() == before
    assert ulm("fit", "--data", f"coco:{faces}", "--out", model, *TINY, "--overwrite").exit_code == 0
    assert (model / "model.safetensors").read_bytes() == before


def test_fit_starts_from_another_model(model: Path, faces: Path, tmp_path: Path) -> None:
    fit = ("fit", "--data", f"coco:{faces}", "--out", tmp_path / "tuned", *TINY)
    assert ulm(*fit, "--start", model).exit_code == 0
    card = json.loads((tmp_path / "tuned" / "config.json").read_text())["card"]
    assert card["start"] == str(model)
    assert f"--start {model}" in card["command"]
    assert "already holds this model" in ulm(*fit, "--start", model).stderr
    fails(ulm(*fit), "found another model")
    fails(ulm(*fit, "--start", "nowhere"), "nowhere")
    other = ("fit", "--data", f"coco:{faces}", "--out", tmp_path / "seven", *TINY, "--landmarks", 7)
    fails(ulm(*other, "--start", model), "has other shapes")


def test_fit_on_a_folder_takes_all_images(faces: Path, tmp_path: Path) -> None:
    assert ulm("fit", "--data", f"folder:{faces / 'images'}", "--out", tmp_path / "m", *TINY).exit_code == 0
    card = json.loads((tmp_path / "m" / "config.json").read_text())["card"]
    assert (card["n_images"], card["split"]) == (40, "all")


def test_fit_with_video_pairs(faces: Path, tmp_path: Path) -> None:
    result = ulm("fit", "--data", f"coco:{faces}", "--out", tmp_path / "m", *TINY, "--video-pairs")
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "m" / "config.json").read_text())["parameters"]["pairs"] == "video"
    images = f"folder:{faces / 'images'}"
    fails(ulm("fit", "--data", images, "--out", tmp_path / "n", *TINY, "--video-pairs"), "has no videos")


def test_a_killed_fit_goes_on_to_the_same_result(faces: Path, tmp_path: Path) -> None:
    def arguments(out: Path) -> list[str]:
        tiny = [*TINY[:-1], "100", "--checkpoint-seconds", "0.1"]
        return ["fit", "--data", f"coco:{faces}", "--out", str(out), *tiny]

    out, checkpoint = tmp_path / "killed", tmp_path / "killed.partial.safetensors"
    process = subprocess.Popen([sys.executable, "-m", "ulm.cli", *arguments(out)], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 50
    while not checkpoint.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert checkpoint.exists()
    assert not (out / "config.json").exists()
    assert ulm(*arguments(out)).exit_code == 0
    assert ulm(*arguments(tmp_path / "whole")).exit_code == 0
    assert not checkpoint.exists()
    assert (out / "model.safetensors").read_bytes() == (tmp_path / "whole" / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--landmarks", "-3"], "n_landmarks=-3"),
        (["--landmarks", "0"], "n_landmarks=0"),
        (["--size", "33"], "image_size 33"),
        (["-p", "width", "wide"], "width='wide'"),
        (["-p", "equivariance", "true"], "equivariance=True"),
        (["--steps", "0"], "steps=0"),
        (["-p", "n_landmark", "3"], "n_landmark"),
        (["-p", "width"], "without a value"),
        (["--method", "imn"], "expected one of imm"),
        (["--profile", "desk"], "profile 'desk'"),
        (["--device", "gpu"], "device 'gpu'"),
        (["--split", "training"], "split 'training'"),
        (["--limit", "0"], "limit 0"),
    ],
)
def test_bad_settings(faces: Path, tmp_path: Path, arguments: list[str], word: str) -> None:
    base = ["fit", "--data", f"coco:{faces}", "--out", str(tmp_path / "m"), "--profile", "smoke"]
    given = ["-p", "convention", "release", "-p", "loss", "l2"]
    fails(ulm(*base, *given, *arguments), word)
    assert not (tmp_path / "m").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_that_is_not_there(faces: Path, model: Path, tmp_path: Path) -> None:
    fails(ulm("fit", "--data", f"coco:{faces}", "--out", tmp_path / "m", *TINY, "--device", "cuda"), "no CUDA device")
    fails(ulm("predict", model, faces / "images", "--device", "cuda"), "no CUDA device")


def test_bad_data(faces: Path, tmp_path: Path) -> None:
    def fit(data: str) -> Result:
        return ulm("fit", "--data", data, "--out", tmp_path / "m", *TINY)

    (tmp_path / "empty").mkdir()
    fails(fit(f"folder:{tmp_path / 'nowhere'}"), "found no folder")
    fails(fit(f"folder:{tmp_path / 'empty'}"), "found no images")
    fails(fit(f"coco:{tmp_path / 'empty'}"), "found an empty folder")
    fails(fit("pictures"), "procedural:SCENE")
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(3):
        (photos / f"{i}.png").write_bytes((faces / "images" / f"{i:02d}.png").read_bytes())
    (photos / "1.png").write_bytes((photos / "1.png").read_bytes()[:200])
    fails(fit(f"folder:{photos}"), "1.png", "damaged")
    for name in ("1.png", "2.png"):
        (photos / name).unlink()
    fails(fit(f"folder:{photos}"), "1 training image")


def test_an_output_that_cannot_be_written(faces: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    fails(ulm("fit", "--data", f"coco:{faces}", "--out", tmp_path / "file" / "m", *TINY), "check the path")


# --- predict ----------------------------------------------------------------------------------------------------------


def test_predict_writes_coco_that_can_be_read(model: Path, faces: Path, tmp_path: Path) -> None:
    result = ulm("predict", model, faces / "images", "--out", faces / "found.json")
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    content = json.loads((faces / "found.json").read_text())
    (faces / "found.json").unlink()
    assert len(content["images"]) == len(content["annotations"]) == 40
    assert content["categories"][0]["keypoints"] == ["point-01", "point-02", "point-03", "point-04"]
    one = ulm("predict", model, faces / "images" / "03.png", "--out", tmp_path / "one.json")
    assert one.exit_code == 0
    (annotation,) = json.loads((tmp_path / "one.json").read_text())["annotations"]
    np.testing.assert_allclose(annotation["keypoints"], content["annotations"][3]["keypoints"], atol=0.01)


class Brightest:
    """Finds the centre of mass of what is bright."""

    image_size, n_landmarks = 64, 1

    def predict(self, images: torch.Tensor) -> torch.Tensor:
        weights = images.mean(1).clamp(min=0.2) - 0.2
        centres = torch.arange(64) + 0.5
        total = weights.sum((1, 2))
        return torch.stack([(weights.sum(1) * centres).sum(1) / total, (weights.sum(2) * centres).sum(1) / total], -1)[
            :, None
        ]


def test_predictions_are_in_pixels_of_each_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ulm.methods.load", lambda *_: Brightest())
    places = {"wide.png": (150, 70, 120.0, 20.0), "tall.jpg": (61, 200, 15.0, 150.0), "small.png": (20, 20, 5.0, 14.0)}
    for name, (width, height, x, y) in places.items():
        rows, columns = np.mgrid[:height, :width] + 0.5
        spot = 255 * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * (max(width, height) / 30) ** 2))
        Image.fromarray(spot.astype(np.uint8)).save(tmp_path / name, quality=95)
    turned = Image.open(tmp_path / "wide.png")
    exif = turned.getexif()
    exif[0x0112] = 3
    turned.save(tmp_path / "turned.png", exif=exif)
    assert ulm("predict", "any", tmp_path, "--out", tmp_path / "out.json").exit_code == 0
    content = json.loads((tmp_path / "out.json").read_text())
    found = {i["file_name"]: a["keypoints"][:2] for i, a in zip(content["images"], content["annotations"], strict=True)}
    sizes = {i["file_name"]: (i["width"], i["height"]) for i in content["images"]}
    for name, (width, height, x, y) in places.items():
        assert sizes[name] == (width, height)
        np.testing.assert_allclose(found[name], (x, y), atol=0.02 * max(width, height))
    np.testing.assert_allclose(found["turned.png"], (150 - 120, 70 - 20), atol=3)


def test_predict_with_bad_input(model: Path, faces: Path, tmp_path: Path) -> None:
    fails(ulm("predict", tmp_path / "no-model", faces / "images"), "found no model folder")
    fails(ulm("predict", model, tmp_path / "nowhere"), "found no folder")
    fails(ulm("predict", tmp_path, faces / "images"), "config.json")
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in model.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    (copy / "extra.pkl").write_bytes(b"")
    fails(ulm("predict", copy, faces / "images"), "pickle")
    (copy / "extra.pkl").unlink()
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "model.safetensors").write_bytes(weights)
    fails(ulm("predict", copy, faces / "images"), "SHA-256")


# --- evaluate ---------------------------------------------------------------------------------------------------------


def test_evaluate_prints_one_json_object_and_nothing_else(model: Path, faces: Path) -> None:
    result = ulm("evaluate", model, "--data", f"coco:{faces}", "--labels", 10, "--repeats", 2, "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    expected = {
        "forward_nme",
        "backward_nme",
        "mean_shape_nme",
        "untrained_nme",
        "landmarks",
        "labels",
        "n_test",
        "seconds",
    }
    assert expected <= set(report)
    assert all(report[key] > 0 for key in expected)
    assert (report["landmarks"], report["labels"], report["repeats"]) == (4, 10, 2)
    assert report["n_fit"] + report["n_test"] <= 40


def test_two_folders_are_used_whole(model: Path, faces: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    (other / "images").mkdir(parents=True)
    content = json.loads((faces / "keypoints.json").read_text())
    content = content | {"images": content["images"][:12], "annotations": content["annotations"][:12]}
    for image in content["images"]:
        (other / "images" / image["file_name"]).write_bytes((faces / "images" / image["file_name"]).read_bytes())
    (other / "keypoints.json").write_text(json.dumps(content))
    arguments = ["evaluate", model, "--data", f"coco:{other}", "--fit-data", f"coco:{faces}", "--labels", 20, "--json"]
    report = json.loads(ulm(*arguments).stdout)
    assert (report["n_test"], report["n_fit"]) == (12, 40)
    content["categories"][0]["keypoints"] = ["a", "b", "c", "z"]
    (other / "keypoints.json").write_text(json.dumps(content))
    fails(ulm(*arguments), "expected the same landmarks in both")


def test_evaluate_in_words_and_on_the_card(model: Path, faces: Path) -> None:
    result = ulm("evaluate", model, "--data", f"coco:{faces}", "--labels", 10, "--add-to-card")
    assert result.exit_code == 0, result.output
    assert "forward NME" in result.stdout
    assert "forward_nme" in (model / "card.md").read_text()


def test_evaluate_warns_of_images_that_the_model_has_seen(model: Path, faces: Path) -> None:
    data = f"coco:{faces}"
    result = ulm("evaluate", model, "--data", data, "--split", "all", "--fit-split", "train", "--labels", 5)
    assert "that it is tested on" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--labels", "0"], "0 labels"),
        (["--labels", "-5"], "-5 labels"),
        (["--repeats", "0"], "0 repeats"),
        (["--regressor", "forest"], "regressor 'forest'"),
        (["--normaliser", "foot"], "normaliser 'foot'"),
        (["--subset", "mafl-5"], "subset 'mafl-5'"),
    ],
)
def test_evaluate_with_bad_settings(model: Path, faces: Path, arguments: list[str], word: str) -> None:
    fails(ulm("evaluate", model, "--data", f"coco:{faces}", "--labels", "5", *arguments), word)


def test_evaluate_needs_labels(model: Path, faces: Path) -> None:
    fails(ulm("evaluate", model, "--data", f"folder:{faces / 'images'}"), "found no landmarks")


# --- data, zoo, status, book, run -------------------------------------------------------------------------------------


def test_data_check_reports_or_names_the_error(faces: Path, tmp_path: Path) -> None:
    result = ulm("data", "check", f"coco:{faces}", "--json")
    report = json.loads(result.stdout)
    assert (report["items"], report["landmarks"], report["labelled"]) == (40, 4, "100.0%")
    assert report["train_items"] + report["val_items"] + report["test_items"] == 40
    assert "fingerprint" in ulm("data", "check", f"folder:{faces / 'images'}").stdout
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(3):
        (photos / f"{i}.jpg").write_bytes(b"no image")
    fails(ulm("data", "check", f"folder:{photos}"), "0.jpg", "and 2 more")
    fails(ulm("data", "check", f"coco:{tmp_path / 'nowhere'}"), "found no folder")


def test_data_list() -> None:
    rows = json.loads(ulm("data", "list", "--json").stdout)
    assert {"procedural:faces", "coco:FOLDER", "folder:IMAGES"} <= {row["name"] for row in rows}
    assert "procedural:faces" in ulm("data", "list").stdout


def test_zoo_commands(model: Path, faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ulm.zoo._ROOT", model.parent)
    (row,) = json.loads(ulm("zoo", "list", "--json").stdout)
    assert (row["name"], row["landmarks"]) == ("tiny", 4)
    assert "# tiny" in ulm("zoo", "card", "tiny").stdout
    assert json.loads(ulm("zoo", "card", "tiny", "--json").stdout)["data"] == f"coco:{faces}"
    fails(ulm("zoo", "train", "imm-cats-k9", "--out", tmp_path / "cats"), "found no recipe")
    fails(ulm("zoo", "card", "imm-cats-k9"), "found no model folder")
    assert ulm("predict", "tiny", faces / "images" / "00.png", "--out", tmp_path / "o.json").exit_code == 0


def test_zoo_train_makes_a_model_and_what_it_starts_from(
    faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ulm.zoo import recipes

    changes = {"n_landmarks": 3, "loss": "l2", "steps": 4}
    known = {
        "one": recipes.Recipe("imm", f"coco:{faces}", changes),
        "two": recipes.Recipe("imm", f"coco:{faces}", changes, start="one", share=0.5),
    }
    monkeypatch.setattr(recipes, "RECIPES", known)
    monkeypatch.setattr(recipes, "_monitor", lambda *_: None)
    for _ in range(2):  # The second time it is read.
        result = ulm("zoo", "train", "two", "--profile", "smoke", "--out", tmp_path / "two")
        assert result.exit_code == 0, result.output
    config = json.loads((tmp_path / "two" / "config.json").read_text())
    assert config["parameters"]["steps"] == 2
    assert (tmp_path / "one" / "model.safetensors").is_file()
    shipped = recipes.ship("two", tmp_path / "two", tmp_path / "shipped")
    assert json.loads((shipped / "config.json").read_text())["networks"] == ["pose"]
    fails(ulm("zoo", "train", "two", "--profile", "smoke", "--seed", "1", "--out", tmp_path / "two"), "other settings")


def test_status_lists_the_inventory() -> None:
    rows = json.loads(ulm("status", "--json").stdout)
    assert {"id", "rows", "paper", "recorded", "built"} <= set(rows[0])
    assert "imm/table-1" in {row["id"] for row in rows}


def test_book_calls_make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def make(command: list[str], cwd: Path, check: bool) -> SimpleNamespace:
        calls.append((command, cwd))
        return SimpleNamespace(returncode=7)

    monkeypatch.setattr(cli.subprocess, "run", make)
    for name in ("_toc.yml", "Makefile"):
        (tmp_path / name).write_text("")
    monkeypatch.chdir(tmp_path)
    assert ulm("book", "--profile", "smoke").exit_code == 7
    assert calls == [(["make", "book", "PROFILE=smoke"], tmp_path)]
    fails(ulm("book", "--profile", "huge"), "profile 'huge'")


def test_run_hands_typed_parameters_to_the_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr("ulm.notebooks.execute", lambda *a: calls.append(a))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "page.ipynb").write_text("{}")
    result = ulm("run", "page.ipynb", "-p", "K", 30, "-p", "retrain", "True", "-p", "profile=smoke", "--out", "o.ipynb")
    assert result.exit_code == 0, result.output
    assert calls[0][0].name == "page.ipynb"
    assert calls[0][1] == Path("o.ipynb")
    assert calls[0][2] == {"K": "30", "retrain": "True", "profile": "smoke"}
    fails(ulm("run", "pgae.ipynb"), "found no notebook 'pgae.ipynb'")
    fails(ulm("run", "page.ipynb", "-p", "K"), "without a value")


def test_run_refuses_a_misspelt_parameter(tmp_path: Path) -> None:
    cell = {
        "cell_type": "code",
        "id": "a",
        "source": "K: int = 10  # landmarks",
        "outputs": [],
        "execution_count": None,
    }
    notebook = {
        "cells": [cell | {"metadata": {"tags": ["parameters"]}}],
        "metadata": {},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    (tmp_path / "page.ipynb").write_text(json.dumps(notebook))
    fails(ulm("run", tmp_path / "page.ipynb", "-p", "k", 3, "--out", tmp_path / "o.ipynb"), "'k'", "K: int")
    fails(ulm("run", tmp_path / "page.ipynb", "-p", "K", "ten", "--out", tmp_path / "o.ipynb"), "expected int")
    assert not (tmp_path / "o.ipynb").exists()


@pytest.mark.parametrize(
    ("text", "value"),
    [("30", 30), ("0.5", 0.5), ("true", True), ("False", False), ("None", None), ("null", None), ("smoke", "smoke")],
)
def test_values_are_typed(text: str, value: Any) -> None:
    assert cli._values([f"a={text}"]) == {"a": value}


def test_values_may_hold_equals_signs() -> None:
    assert cli._values(["a=b=c"]) == {"a": "b=c"}
