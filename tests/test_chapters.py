import json

import pytest

from ulm import chapters, figures, methods, runs, tables

FACTS = {"dataset": "procedural:faces", "fingerprint": "0", "n_test": 3}


def test_stand_in_unless_the_papers_data_is_there(tmp_path):
    assert chapters.data("auto", "", "mafl", "procedural:faces", "smoke").spec == "procedural:faces"
    assert chapters.data("auto", str(tmp_path), "mafl", "procedural:faces", "smoke").name == "procedural:faces"
    (tmp_path / "mafl").mkdir()
    (tmp_path / "mafl" / "keypoints.json").write_text("{}")
    own = chapters.data("auto", str(tmp_path), "mafl", "procedural:faces", "smoke")
    assert (own.spec, own.name) == (f"coco:{tmp_path}/mafl", "mafl")
    given = chapters.data("procedural:faces-wild", str(tmp_path), "mafl", "procedural:faces", "smoke")
    assert given.spec == given.name == "procedural:faces-wild"


def test_sizes_are_those_of_the_profile(tmp_path, monkeypatch):
    monkeypatch.setenv("ULM_CACHE", str(tmp_path))
    data, settings = chapters.data("auto", "", "mafl", "procedural:faces", "smoke"), runs.profile("smoke")
    assert (len(data.fit), len(data.test)) == (settings["fit"], settings["test"])
    assert len(data.pool) == settings["pool"]
    assert data.fit.size == settings["size"]
    assert data.fit.fingerprint != data.test.fingerprint


def test_labelled_frames_are_of_many_people(tmp_path, monkeypatch):
    monkeypatch.setenv("ULM_CACHE", str(tmp_path))
    settings = {**runs.profile("smoke"), "size": 16, "data": 64, "fit": 8, "pool": 8}
    monkeypatch.setitem(runs.PROFILES, "smoke", settings)
    data = chapters.data("auto", "", "human36m", "procedural:people", "smoke")
    assert len(set(data.fit.column("video"))) == 4
    assert len(set(data.pool.column("video"))) == 1
    trained = [data.train[place] for place in range(64)]
    assert all(any((frame["image"] == other["image"]).all() for other in trained) for frame in data.fit)
    # Nothing moves in pictures: the first are as good as any.
    faces = chapters.data("auto", "", "mafl", "procedural:faces", "smoke")
    assert faces.fit.fingerprint == faces.pool.fingerprint


def test_numbers_and_pictures_are_valid_records(tmp_path, monkeypatch):
    monkeypatch.setenv("ULM_NUMBERS", str(tmp_path))
    record = chapters.Record("imm_faces", "smoke", "cpu")
    record.number("imm/table-1", "selfsup K=10", "MAFL", 5.123456, FACTS, std=0.2)
    record.number("imm/table-1", "selfsup K=10", "MAFL", 4.0, FACTS)
    drawn = figures.architecture()
    assert record.picture("imm/figure-1", drawn, FACTS) is drawn
    number, picture = tables.measurements(tmp_path)
    assert (number["value"], number["provenance"]["profile"]) == (4.0, "smoke")
    assert (tmp_path / picture["picture"]).stat().st_size > 1000
    assert "value" not in picture
    assert json.loads((tmp_path / "imm_faces.json").read_text()) == [number, picture]
    built = tables.status_rows(tmp_path).set_index(["id", "row"])["built"]
    assert built["imm/figure-1", "picture"]
    assert tables.table("imm/table-1", built=tmp_path).loc["selfsup K=10", ("MAFL", "this run")] == 4.0


def test_pictures_of_one_id_have_names_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setenv("ULM_NUMBERS", str(tmp_path))
    record = chapters.Record("imm_faces", "smoke", "cpu")
    record.picture("imm/figure-2", figures.architecture(), FACTS)
    record.picture("imm/figure-2", figures.architecture(), FACTS, row="ours: score maps")
    names = [entry["picture"] for entry in tables.measurements(tmp_path)]
    assert len(set(names)) == 2
    assert all((tmp_path / name).is_file() for name in names)


def test_models_of_ones_own_go_first(tmp_path):
    assert chapters.detector("no-such-model", "smoke") is None
    tiny = methods.IMM(n_landmarks=4, image_size=32, width=4, loss="l2", device="cpu")
    tiny.initialise()
    tiny.save_pretrained(tmp_path / "imm-faces-k10")
    found = chapters.detector("imm-faces-k10", "smoke", "cpu", models=str(tmp_path))
    assert found is not None
    assert found.n_landmarks == 4


@pytest.mark.parametrize(
    ("standin", "subset", "normaliser"),
    [("faces", "mafl-5", "pupils"), ("faces-posed", "mafl-5", None), ("birds", None, None)],
)
def test_five_points_are_mafls_where_there_are_such(standin, subset, normaliser):
    data = chapters.data("auto", "", "mafl", f"procedural:{standin}", "smoke")
    assert data.five == {"subset": subset, "normaliser": normaliser}
