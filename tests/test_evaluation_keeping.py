"""A long pass over many images survives a kill."""

import json

import numpy as np
import pytest
from test_imm import TINY, Squares
from typer.testing import CliRunner

from ulm import evaluation
from ulm.cli import app
from ulm.evaluation import keeping
from ulm.methods import IMM


class Killed(Exception):
    """Stands for a kill."""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The cache folder; what is found is written after each part."""
    monkeypatch.setenv("ULM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(keeping, "SECONDS", 0.0)
    return tmp_path / "cache" / "found"


@pytest.fixture(scope="module")
def model():
    made = IMM(**{**TINY, "steps": 1})
    made.initialise()
    return made


@pytest.fixture
def calls(monkeypatch):
    """Sizes of the batches that were looked at; the third look of all is killed."""
    seen, predict = [], IMM.predict

    def counted(self, images, *rest):
        seen.append(len(images))
        if len(seen) == 3:
            raise Killed
        return predict(self, images, *rest)

    monkeypatch.setattr(IMM, "predict", counted)
    return seen


def test_a_pass_goes_on_after_a_kill(model, folder, calls):
    whole = model.predict(Squares(11).batch(range(11))["image"])
    calls.clear()
    with pytest.raises(Killed):
        evaluation.detect(model, Squares(11), batch=3)
    assert len(list(folder.iterdir())) == 1
    found = evaluation.detect(model, Squares(11), batch=3)
    assert calls == [3, 3, 3, 3, 2]
    np.testing.assert_allclose(found.found, whole.numpy(), atol=1e-4)
    assert found.truth.shape == (11, 1, 2)
    assert not list(folder.iterdir())


def test_other_weights_images_or_settings_begin_anew(model, folder, calls):
    with pytest.raises(Killed):
        evaluation.detect(model, Squares(11), batch=3)
    other = IMM(**{**TINY, "steps": 1, "seed": 1})
    other.initialise()
    for detector, data, batch in (
        (other, Squares(11), 3),
        (model, Squares(12), 3),
        (model, Squares(11), 4),
    ):
        calls[:] = [0] * 3
        evaluation.detect(detector, data, batch=batch)
        assert sum(calls) == len(data)


def test_a_file_that_is_no_file_of_tensors_is_ignored(model, folder, calls):
    with pytest.raises(Killed):
        evaluation.detect(model, Squares(11), batch=3)
    for file in folder.iterdir():
        file.write_bytes(b"nonsense")
    evaluation.detect(model, Squares(11), batch=3)
    assert calls[3:] == [3, 3, 3, 2]


def test_a_full_disk_loses_nothing(model, folder, calls, monkeypatch):
    def full(path, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(keeping, "atomic_write", full)
    with pytest.warns(RuntimeWarning, match="No space left on device"):
        found = evaluation.detect(model, Squares(6), batch=3)
    assert found.found.shape == (6, 4, 2)
    assert calls == [3, 3]


def test_a_short_pass_writes_nothing(model, tmp_path, monkeypatch, calls):
    monkeypatch.setenv("ULM_CACHE", str(tmp_path / "cache"))
    with pytest.raises(Killed):
        evaluation.detect(model, Squares(11), batch=3)
    assert not (tmp_path / "cache" / "found").exists()


def test_what_has_no_weights_is_not_kept(folder):
    class Middle:
        def predict(self, images):
            return images.new_full((len(images), 2, 2), 16.0)

    assert (evaluation.detect(Middle(), Squares(5), batch=2).found == 16).all()
    assert not folder.exists()


def test_predict_on_the_command_line_goes_on(model, folder, tmp_path, calls, monkeypatch):
    from PIL import Image

    model.save_pretrained(tmp_path / "model")
    (tmp_path / "images").mkdir()
    for n in range(70):
        pixels = Squares(70)[n]["image"].permute(1, 2, 0).numpy()
        Image.fromarray((pixels * 255).astype(np.uint8)).save(tmp_path / "images" / f"{n:02d}.png")
    command = ["predict", str(tmp_path / "model"), str(tmp_path / "images"), "--out", str(tmp_path / "a.json")]
    assert isinstance(CliRunner().invoke(app, command).exception, Killed)
    assert not (tmp_path / "a.json").exists()
    assert CliRunner().invoke(app, command).exit_code == 0
    assert calls == [32, 32, 6, 6]
    assert CliRunner().invoke(app, [*command[:-1], str(tmp_path / "b.json")]).exit_code == 0
    assert calls[4:] == [32, 32, 6]
    assert json.loads((tmp_path / "a.json").read_text()) == json.loads((tmp_path / "b.json").read_text())
