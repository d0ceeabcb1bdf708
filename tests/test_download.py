"""Open data: fetched from a server on this machine, checked, unpacked, converted."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import http.server
import io
import json
import os
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
from PIL import Image
from typer.testing import CliRunner

from ulm import cli, datasets
from ulm.datasets import download
from ulm.errors import InputError

FACES = download.SETS["faces-ytf"]
PEOPLE = download.SETS["people-lsp"]


# --- small repositories -----------------------------------------------------------------------------------------------


def jpeg(width: int, height: int, seed: int = 0) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).resize((width, height)).save(file, "JPEG", quality=95)
    return file.getvalue()


def face_points(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(10, 90, (68, 2))


def face_files() -> dict[str, bytes]:
    names = [f"{who}_{video}{frame}.jpg" for who in ("A_B", "C-D_E", "F_G", "H_I") for video in "03" for frame in "012"]
    header = ",".join(["", *map(str, range(136))])
    rows = [",".join([name, *(f"{v:.1f}" for v in face_points(i).ravel())]) for i, name in enumerate(names)]
    table = "\n".join([header, *rows]).encode()
    files = {f"data/training/{name}": jpeg(104, 96, i) for i, name in enumerate(names)}
    return {**files, "data/training_frames_keypoints.csv": table}


def people_joints(count: int) -> np.ndarray:
    """(14, 3, count); person i has i hidden joints, whose place is nonsense."""
    joints = np.random.default_rng(1).uniform(20, 100, (14, 3, count))
    joints[:, 2] = np.arange(14)[:, None] >= np.arange(count)
    joints[:, :2][np.broadcast_to(joints[:, 2:] == 0, (14, 2, count))] = -50
    return joints


def people_files() -> dict[str, bytes]:
    file = io.BytesIO()
    scipy.io.savemat(file, {"joints": people_joints(5)})
    return {"joints.mat": file.getvalue(), **{f"images/im{i:05d}.jpg": jpeg(120, 120, i) for i in range(1, 6)}}


def archive(files: dict[str, bytes], *members: tarfile.TarInfo) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz", compresslevel=1) as tar:
        for name, content in {"README.md": b"not listed", **files}.items():
            info = tarfile.TarInfo(f"repository-0123/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for info in members:
            tar.addfile(info, io.BytesIO(b"x" * info.size) if info.isfile() else None)
    return file.getvalue()


def sums(files: dict[str, bytes]) -> dict[str, str]:
    return {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, size
    return info


class Server:
    """A server on this machine: what it has, how it misbehaves, and what was asked of it."""

    def __init__(self) -> None:
        self.content: dict[str, bytes] = {}
        self.cuts: list[int] = []  # The next answers end after so many bytes.
        self.knows_range = self.knows_length = True
        self.busy = 0
        self.requests: list[tuple[str, str]] = []

    def answer(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        wanted = handler.headers.get("Range", "")
        self.requests.append((handler.path, wanted))
        if self.busy:
            self.busy -= 1
            handler.send_error(503)
            return
        if handler.path not in self.content:
            handler.send_error(404)
            return
        content = self.content[handler.path]
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.knows_range else 0
        if start and start >= len(content):
            handler.send_error(416)
            return
        handler.send_response(206 if start else 200)
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if self.knows_length:
            handler.send_header("Content-Length", str(len(content) - start))
        handler.end_headers()
        end = start + self.cuts.pop(0) if self.cuts else len(content)
        handler.wfile.write(content[start:end])
        handler.close_connection = True


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    state = Server()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.answer(self)

        def log_message(self, *_: Any) -> None:
            pass

    listening = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=listening.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    monkeypatch.setenv(download.BASE_VARIABLE, f"http://127.0.0.1:{listening.server_port}")
    monkeypatch.setattr(download, "_WAITS", (0.0, 0.0))
    monkeypatch.setattr(download, "_PROGRESS", 1)
    monkeypatch.setattr("pooch.core.time.sleep", lambda _: None)
    yield state
    listening.shutdown()
    listening.server_close()


Offer = Callable[..., dict[str, bytes]]


@pytest.fixture
def offer(server: Server, monkeypatch: pytest.MonkeyPatch) -> Offer:
    """Puts a repository on the server, and its hashes into the package; what is served may differ from the list."""

    def put(chosen: download.OpenSet, *members: tarfile.TarInfo, served: dict[str, bytes] | None = None) -> Any:
        files = face_files() if chosen is FACES else people_files()
        monkeypatch.setattr(download, "hashes", lambda name: sums(files))
        shown = files if served is None else served
        server.content[f"/{chosen.repository}/archive/{chosen.commit}.tar.gz"] = archive(shown, *members)
        for name, content in shown.items():
            server.content[f"/{chosen.repository}/raw/{chosen.commit}/{name}"] = content
        return files

    return put


def get(tmp_path: Path, name: str = "faces-ytf", **arguments: Any) -> Path:
    return download.get(name, tmp_path / "out", progress=False, **arguments)


def kept(tmp_path: Path) -> set[str]:
    """The raw files that are there, without archives and marks."""
    raw = tmp_path / "out.download"
    files = {p.relative_to(raw).as_posix() for p in raw.rglob("*") if p.is_file()}
    return {name for name in files if "archive" not in name and name != "source.txt"}


# --- the lists --------------------------------------------------------------------------------------------------------


def test_the_lists_name_every_raw_file() -> None:
    faces, people = download.hashes("faces-ytf"), download.hashes("people-lsp")
    assert sum(name.startswith("data/training/") for name in faces) == 3462
    assert "data/training_frames_keypoints.csv" in faces
    assert sum(name.startswith("images/") for name in people) == 10_000
    assert "joints.mat" in people
    for name, sha256 in (*faces.items(), *people.items()):
        assert len(sha256) == 64
        assert ".." not in name
        assert not name.startswith("/")


# --- good and interrupted downloads -----------------------------------------------------------------------------------


def test_faces_become_a_labelled_folder(offer: Offer, server: Server, tmp_path: Path) -> None:
    offer(FACES)
    folder = get(tmp_path)
    data = datasets.load(f"coco:{folder}", "all", 128)
    assert len(data) == 24
    item = data[7]
    assert (item["name"], item["subject"], item["video"], item["frame"]) == ("C-D_E_01.jpg", "C-D_E", "C-D_E_0", 1)
    assert item["image"].shape == (3, 128, 128)
    assert item["visible"].all()
    points = item["landmarks"].numpy()
    # Square round the landmarks, side 1.6 times the longer side of their box.
    np.testing.assert_allclose(np.ptp(points, axis=0).max(), 128 / 1.6, atol=0.02)
    np.testing.assert_allclose((points.min(0) + points.max(0)) / 2, 64, atol=0.02)
    raw = face_points(7)
    scale = 80 / np.ptp(raw, axis=0).max()
    np.testing.assert_allclose(points - points[0], (raw - raw[0]) * scale, atol=0.02)
    assert data.info.normaliser == "outer-eye-corners"
    assert data.info.licence == "for research"
    assert not (tmp_path / "out.download").exists()
    asked = len(server.requests)
    assert get(tmp_path) == folder  # Whole already: nothing is asked of the server.
    assert len(server.requests) == asked


def test_people_become_a_labelled_folder(offer: Offer, tmp_path: Path) -> None:
    offer(PEOPLE)
    data = datasets.load(f"coco:{get(tmp_path, 'people-lsp')}", "all", 128)
    # Those with twelve visible joints or more.
    assert [data[i]["name"] for i in range(len(data))] == ["im00001.jpg", "im00002.jpg", "im00003.jpg"]
    item = data[2]
    assert item["visible"].tolist() == [False] * 2 + [True] * 12
    points = item["landmarks"].numpy()[2:]
    np.testing.assert_allclose(np.ptp(points, axis=0).max(), 128 / 1.5, atol=0.02)
    assert item["landmarks"][:2].isnan().all()
    assert len(data.info.flip_pairs) == 6
    assert (13, 12) in data.info.skeleton or (12, 13) in data.info.skeleton


def test_a_cut_connection_goes_on_where_it_stopped(offer: Offer, server: Server, tmp_path: Path) -> None:
    offer(FACES)
    server.cuts = [30_000, 20_000]
    get(tmp_path)
    starts = [int(wanted[6:-1] or 0) if wanted else 0 for _, wanted in server.requests]
    assert starts[0] == 0
    assert 0 < starts[1] < starts[2] <= 50_000
    assert len(starts) == 3


def test_a_server_that_knows_no_range_starts_again(offer: Offer, server: Server, tmp_path: Path) -> None:
    offer(FACES)
    server.knows_range, server.cuts = False, [30_000]
    assert len(datasets.load(f"coco:{get(tmp_path)}", "all")) == 24


def test_a_cut_without_a_length_is_noticed(offer: Offer, server: Server, tmp_path: Path) -> None:
    offer(FACES)
    server.knows_length, server.cuts = False, [30_000]
    assert len(datasets.load(f"coco:{get(tmp_path)}", "all")) == 24


def test_what_came_before_the_last_cut_is_kept(offer: Offer, server: Server, tmp_path: Path) -> None:
    files = offer(FACES)
    server.knows_range, server.cuts = False, [60_000] * 5
    with pytest.raises(InputError, match=r"connection to 127.0.0.1.* cut after \d+ bytes.*goes on"):
        get(tmp_path)
    first = kept(tmp_path)
    assert 0 < len(first) < len(files)
    for name in first:
        assert (tmp_path / "out.download" / name).read_bytes() == files[name]
    assert not (tmp_path / "out").exists()
    server.knows_range, server.requests = True, []
    times = {name: (tmp_path / "out.download" / name).stat().st_mtime_ns for name in first}
    get(tmp_path, keep_raw=True)
    assert {name: (tmp_path / "out.download" / name).stat().st_mtime_ns for name in first} == times
    assert kept(tmp_path) == set(files)


def test_a_kill_loses_no_file_that_is_whole(offer: Offer, server: Server, tmp_path: Path) -> None:
    files = offer(FACES)
    raw = tmp_path / "out.download"
    download._claim(raw, FACES)
    whole = server.content[f"/{FACES.repository}/archive/{FACES.commit}.tar.gz"]
    (raw / "archive.tar.gz.partial").write_bytes(whole[: len(whole) * 3 // 4])
    server.requests.clear()
    get(tmp_path, keep_raw=True)
    # More than half was in the partial archive: the rest is fetched file by file.
    assert 0 < len(server.requests) <= len(files) // 2
    assert all("/raw/" in path for path, _ in server.requests)
    assert kept(tmp_path) == set(files)


def test_a_damaged_partial_archive_is_replaced(offer: Offer, tmp_path: Path) -> None:
    offer(FACES)
    download._claim(tmp_path / "out.download", FACES)
    (tmp_path / "out.download" / "archive.tar.gz.partial").write_bytes(b"not an archive")
    get(tmp_path)


def test_pieces_of_two_archives_are_noticed(offer: Offer, server: Server, tmp_path: Path) -> None:
    files = offer(FACES)
    path = f"/{FACES.repository}/archive/{FACES.commit}.tar.gz"
    other = gzip.compress(gzip.decompress(archive(files)), 9)
    download._claim(tmp_path / "out.download", FACES)
    partial = tmp_path / "out.download" / "archive.tar.gz.partial"
    partial.write_bytes(other[:8_000])
    get(tmp_path)
    assert [wanted for asked, wanted in server.requests if asked == path] == ["bytes=8000-", ""]


def test_a_busy_server_is_asked_again(offer: Offer, server: Server, tmp_path: Path) -> None:
    offer(FACES)
    server.busy = 2
    get(tmp_path)


def test_raw_files_with_another_hash_are_fetched_again(offer: Offer, server: Server, tmp_path: Path) -> None:
    files = offer(FACES)
    download._claim(tmp_path / "out.download", FACES)
    for name, content in files.items():
        download._put(tmp_path / "out.download" / name, content)
    (tmp_path / "out.download" / "data/training/F_G_01.jpg").write_bytes(b"changed")
    get(tmp_path)
    assert [path.rsplit("/", 1)[1] for path, _ in server.requests] == ["F_G_01.jpg"]


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "word"),
    [
        (member("../../out-evil.txt", size=4), "leads out"),
        (member("repository-0123/../../evil.txt", size=4), "leads out"),
        (member("/evil.txt", size=4), "leads out"),
        (member("repository-0123\\..\\evil.txt", size=4), "leads out"),
        (member("repository-0123/evil", tarfile.SYMTYPE, "/"), "a link"),
        (member("repository-0123/data/training/A_B_00.jpg", tarfile.SYMTYPE, "../../../evil"), "a link"),
        (member("repository-0123/evil", tarfile.LNKTYPE, "repository-0123/README.md"), "a link"),
        (member("repository-0123/evil", tarfile.FIFOTYPE), "a link or a device"),
    ],
    ids=["up", "up inside", "absolute", "backslash", "symbolic link", "link for a file", "hard link", "pipe"],
)
def test_members_that_climb_out_are_refused(
    offer: Offer, server: Server, tmp_path: Path, bad: tarfile.TarInfo, word: str
) -> None:
    files = offer(FACES)
    raw = archive({}, bad)
    server.content[f"/{FACES.repository}/archive/{FACES.commit}.tar.gz"] = raw
    inside = tmp_path / "deep" / "inside"
    with pytest.raises(InputError, match=word):
        download.get("faces-ytf", inside / "out", progress=False)
    written = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if not p.is_dir()}
    assert written == {"deep/inside/out.download/source.txt"}
    assert files


def test_a_link_after_good_members_is_refused(offer: Offer, tmp_path: Path) -> None:
    offer(FACES, member("repository-0123/evil", tarfile.SYMTYPE, "/"))
    with pytest.raises(InputError, match="a link"):
        get(tmp_path)
    assert not any(p.is_symlink() for p in tmp_path.rglob("*"))


def test_too_large_members_are_refused(offer: Offer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_MOST_MEMBER", 100_000)
    offer(FACES, member("repository-0123/model.bin", size=200_000))
    with pytest.raises(InputError, match="a file of 200000 bytes"):
        get(tmp_path)


def test_too_large_archives_are_refused(offer: Offer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_MOST_ARCHIVE", 10_000)
    offer(FACES)
    with pytest.raises(InputError, match="more than 10000 bytes"):
        get(tmp_path)


def test_a_wrong_hash_is_refused(offer: Offer, tmp_path: Path) -> None:
    changed = face_files() | {"data/training/F_G_02.jpg": jpeg(104, 96, 99)}
    offer(FACES, served=changed)
    with pytest.raises(InputError, match=r"found SHA-256 \w{64} of .*F_G_02.jpg, expected \w{64}; .* kept"):
        get(tmp_path)
    assert "data/training/F_G_02.jpg" not in kept(tmp_path)
    assert not (tmp_path / "out").exists()
    # Fetched singly it is just as wrong.
    for name, content in changed.items():
        if not name.endswith("F_G_02.jpg"):
            download._put(tmp_path / "out.download" / name, content)
    with pytest.raises(InputError, match=r"F_G_02.jpg: found another SHA-256"):
        get(tmp_path)


def test_an_archive_without_the_files_is_refused(offer: Offer, server: Server, tmp_path: Path) -> None:
    files = face_files()
    offer(FACES, served=dict(list(files.items())[:5]))
    with pytest.raises(InputError, match="20 of 25 listed files are not in the archive"):
        get(tmp_path)
    offer(FACES, served=dict(list(files.items())[:20]))
    with pytest.raises(InputError, match="answered 404"):  # Few are missing: they are asked for one by one.
        get(tmp_path)


def test_a_page_instead_of_an_archive_is_refused(offer: Offer, server: Server, tmp_path: Path) -> None:
    offer(FACES)
    server.content[f"/{FACES.repository}/archive/{FACES.commit}.tar.gz"] = b"<html>Sign in</html>"
    with pytest.raises(InputError, match="found a damaged archive"):
        get(tmp_path)


def test_folders_of_others_are_left_alone(offer: Offer, server: Server, tmp_path: Path) -> None:
    offer(FACES)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="found other files, expected a new or empty folder"):
        get(tmp_path)
    (tmp_path / "out" / "mine.txt").rename(tmp_path / "mine.txt")
    (tmp_path / "out.download").mkdir()
    with pytest.raises(InputError, match="found other files where the download would go"):
        get(tmp_path)
    assert not server.requests
    (tmp_path / "out.download").rmdir()
    get(tmp_path)  # An empty folder is taken.
    (tmp_path / "out" / "images" / "A_B_00.jpg").unlink()
    with pytest.raises(InputError, match="1 images missing"):
        get(tmp_path)


def test_bad_tables_are_named(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "training_frames_keypoints.csv").write_text(",0,1\nA_B_00.jpg,1,2\n")
    with pytest.raises(InputError, match=r"'A_B_00\.jpg' with 2 values"):
        download._faces(tmp_path)
    (tmp_path / "joints.mat").write_bytes(b"nothing")
    with pytest.raises(InputError, match="found no array 'joints'"):
        download._people(tmp_path)
    scipy.io.savemat(tmp_path / "joints.mat", {"joints": np.zeros((3, 14, 2))})
    with pytest.raises(InputError, match=r"shape \(3, 14, 2\)"):
        download._people(tmp_path)


# --- crops ------------------------------------------------------------------------------------------------------------


def test_the_crop_keeps_what_landmarks_point_at() -> None:
    rows, columns = np.mgrid[:90, :120] + 0.5
    image = np.stack([columns * 2, rows * 2, 0 * rows], axis=-1).round().astype(np.uint8)
    points = np.array([[40.5, 30.5], [80.5, 30.5], [60.5, 55.5], [np.nan, np.nan]])
    picture, moved = download.crop(image, points, 1.6)
    assert np.isnan(moved[3]).all()
    for (x, y), (u, v) in zip(points[:3], moved[:3], strict=True):
        # The colours say where in the image a pixel was.
        found = picture[int(v), int(u)].astype(float) / 2
        assert abs(found[0] - x) < 0.8
        assert abs(found[1] - y) < 0.8


def test_the_crop_repeats_edges() -> None:
    image = np.zeros((40, 40, 3), np.uint8)
    image[:, :4] = 255
    picture, _ = download.crop(image, np.array([[0.5, 5.5], [30.5, 35.5]]), 2.0)
    assert (picture[:, :30] == 255).all()
    assert (picture[:, 60:] == 0).all()


def test_a_crop_needs_a_box() -> None:
    image = np.zeros((40, 40, 3), np.uint8)
    for points in (np.full((3, 2), np.nan), np.array([[3.0, 4.0], [3.0, 4.0]])):
        with pytest.raises(InputError, match="span no box"):
            download.crop(image, points, 1.6)


# --- the command line -------------------------------------------------------------------------------------------------


def ulm(*arguments: Any) -> Any:
    return CliRunner().invoke(cli.app, [str(a) for a in arguments])


def test_the_command_fetches_and_list_finds_it(offer: Offer, tmp_path: Path) -> None:
    offer(FACES)
    result = ulm("data", "get", "faces-ytf", "--out", tmp_path / "faces-ytf")
    assert result.exit_code == 0, result.output
    assert result.stdout == f"coco:{tmp_path / 'faces-ytf'}\n"
    rows = json.loads(ulm("data", "list", "--root", tmp_path, "--json").stdout)
    assert all({"spec", "stand_in", "landmarks", "licence", "access", "present"} <= set(row) for row in rows)
    found = {row["name"]: row for row in rows}
    assert found["faces-ytf"]["present"] is True
    assert found["people-lsp"]["present"] is False
    assert [row["spec"] for row in rows].count(f"coco:{tmp_path / 'faces-ytf'}") == 1
    table = ulm("data", "list", "--root", tmp_path).stdout
    assert "missing" in table
    assert "ulm data get people-lsp" in table


def test_offline_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(download.BASE_VARIABLE, "http://127.0.0.1:9")
    monkeypatch.setattr(download, "_WAITS", (0.0,))
    result = ulm("data", "get", "people-lsp", "--out", tmp_path / "out")
    assert result.exit_code == 2
    errors = [line for line in result.stderr.replace("\r", "\n").splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "found no connection to 127.0.0.1:9" in errors[0]
    assert download.BASE_VARIABLE in errors[0]
    assert "Traceback" not in result.output
    assert result.stdout == ""


def test_wrong_names_and_mirrors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = ulm("data", "get", "faces", "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "expected one of faces-ytf, people-lsp" in result.stderr
    monkeypatch.setenv(download.BASE_VARIABLE, "github.example")
    result = ulm("data", "get", "faces-ytf", "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "found ULM_GITHUB='github.example'" in result.stderr


def test_help_shows_the_mirror() -> None:
    result = ulm("data", "get", "--help")
    assert "ULM_GITHUB" in result.stdout
    assert "Example" in result.stdout


def test_the_default_folder_is_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ULM_CACHE", str(tmp_path))
    assert download.default_folder("faces-ytf") == tmp_path / "data" / "faces-ytf"
    assert os.fspath(tmp_path) in download.listing()[0]["spec"]


def test_sets_are_immutable() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        FACES.commit = "other"  # type: ignore[misc]
