"""Open data: photographs with landmarks in public repositories, fetched, checked and made COCO keypoints folders.

A repository comes as one archive of the named commit: thousands of single requests are slow and soon refused. Such an
archive has no stable hash, so each member is checked against a list of SHA-256 sums that ships with ``ulm``, and only
listed members are ever written. The archive is kept on disk until it is whole: a cut connection goes on with HTTP
Range where the server knows it, else from the start, and after a kill all whole members of the partial archive are
kept. When few files are left they are fetched singly.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import os
import re
import shutil
import sys
import tarfile
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote, urlsplit

import numpy as np
from PIL import Image

from ulm.datasets.cache import cache_folder
from ulm.errors import InputError
from ulm.runs import atomic_write

BASE_VARIABLE = "ULM_GITHUB"
"""The environment variable that names a mirror to use instead of https://github.com."""

_SIZE = 128
_JPEG_QUALITY = 92
_SINGLY = 200  # At most so many files are fetched one by one.
_LEAST_VISIBLE = 12  # Joints of a person, see _people.
_MOST_MEMBER = 100 * 2**20  # GitHub itself stores no larger file.
_MOST_ARCHIVE = 4 * 2**30
_TIMEOUT = (20, 60)  # Seconds to connect, and between two pieces.
_WAITS = (0.5, 2.0, 5.0)  # Seconds before each new try that follows one without progress.
_PROGRESS = 2**20  # Bytes that count as progress.
_BUSY = (408, 425, 429, 500, 502, 503, 504)
_CHUNK = 2**14  # Bytes; a cut loses fewer than these.


@dataclass(frozen=True)
class Labelled:
    """One raw image and its landmarks.

    Attributes:
        file: The raw image.
        points: float64 ``(L, 2)``, (x, y) in its pixels, centre of the first pixel at (0.5, 0.5); NaN where missing.
        extras: ``subject``, ``video`` and ``frame``, where known.
    """

    file: Path
    points: np.ndarray
    extras: Mapping[str, Any]


@dataclass(frozen=True)
class OpenSet:
    """A data set that anyone may fetch.

    Attributes:
        name: As ``ulm data get`` takes it; the list of hashes is ``open_data/NAME.sha256``.
        repository: Owner and name on GitHub.
        commit: The commit that the hashes belong to.
        what: What it shows, in a few words.
        category: The COCO category without its id: name, keypoints, skeleton.
        margin: Side of the square crop in units of the longer side of the landmarks' box.
        licence: Short licence statement.
        citation: Whom to cite.
        read: Lists the labelled images in a folder of raw files.
    """

    name: str
    repository: str
    commit: str
    what: str
    category: Mapping[str, Any]
    margin: float
    licence: str
    citation: str
    read: Callable[[Path], list[Labelled]]

    @property
    def source(self) -> str:
        """Repository and commit in one word."""
        return f"github.com/{self.repository}@{self.commit}"


# --- what users call --------------------------------------------------------------------------------------------------


def default_folder(name: str = "") -> Path:
    """Where open data lies unless a folder is named: ``data/NAME`` in the cache folder of ``ulm``."""
    return cache_folder() / "data" / name


def listing(root: str | Path | None = None) -> list[dict[str, Any]]:
    """One row an open data set, for ``ulm data list``.

    Args:
        root: The folder whose sub-folders are looked at; :func:`default_folder` by default.

    Returns:
        Dicts with ``name``, ``kind``, ``spec``, ``landmarks``, ``stand_in``, ``licence``, ``access``, ``what`` and
        ``present``.
    """
    folder = Path(root) if root else default_folder()
    return [
        {
            "name": entry.name,
            "kind": "open",
            "spec": f"coco:{folder / entry.name}",
            "landmarks": len(entry.category["keypoints"]),
            "stand_in": None,
            "licence": entry.licence,
            "access": f"ulm data get {entry.name}",
            "what": entry.what,
            "present": (folder / entry.name / "keypoints.json").is_file(),
        }
        for entry in SETS.values()
    ]


def get(name: str, out: str | Path | None = None, keep_raw: bool = False, progress: bool = True) -> Path:
    """Fetch an open data set and write it as a COCO keypoints folder that ``coco:FOLDER`` reads.

    Raw files lie in ``OUT.download`` until the folder is whole, so an interrupted call goes on where it stopped; files
    with the right hash are never fetched again. A folder that is whole already is left alone.

    Args:
        name: A name of :data:`SETS`.
        out: The folder to write; :func:`default_folder` by default.
        keep_raw: Leave the raw files in ``OUT.download``.
        progress: Show bars on standard error.

    Returns:
        The folder.

    Raises:
        InputError: The name is unknown, the folder holds something else, there is no connection, or what came is not
            what the list of hashes says.
    """
    if name not in SETS:
        raise InputError(f"found open data set {name!r}, expected one of {', '.join(SETS)}")
    chosen = SETS[name]
    folder = Path(os.path.realpath(out or default_folder(name)))
    if _is_whole(folder, chosen):
        return folder
    raw = folder.with_name(f"{folder.name}.download")
    try:
        _claim(raw, chosen)
        fetch(chosen, hashes(name), raw, progress)
        convert(chosen, raw, raw / "converted", progress)
        if folder.exists():
            folder.rmdir()
        os.replace(raw / "converted", folder)
    except OSError as error:
        problem = f"{error.filename or raw}: {error.strerror or error}"
        raise InputError(f"{problem}; make room or choose another folder, and repeat") from None
    if not keep_raw:
        shutil.rmtree(raw, ignore_errors=True)
    return folder


def hashes(name: str) -> dict[str, str]:
    """The SHA-256 of each raw file of an open data set, by its path in the repository."""
    text = (resources.files("ulm.datasets") / "open_data" / f"{name}.sha256").read_text(encoding="utf-8")
    return {path: sha256 for sha256, path in (line.split("  ", 1) for line in text.splitlines())}


def _claim(raw: Path, chosen: OpenSet) -> None:
    """Make the folder for raw files, which is removed in the end; raises InputError where it holds anything else."""
    mark = raw / "source.txt"
    if raw.exists() and (not mark.is_file() or mark.read_text() != chosen.source):
        raise InputError(f"{raw}: found other files where the download would go; move them, or choose another --out")
    raw.mkdir(parents=True, exist_ok=True)
    atomic_write(mark, chosen.source)


def _is_whole(folder: Path, chosen: OpenSet) -> bool:
    """Whether ``folder`` holds this data set already; raises InputError where it holds anything else."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    try:
        content = json.loads((folder / "keypoints.json").read_text(encoding="utf-8"))
        ours = content["info"]["source"] == chosen.source
    except (OSError, ValueError, KeyError, TypeError):
        ours = False
    if not ours:
        raise InputError(f"{folder}: found other files, expected a new or empty folder; choose another --out")
    lost = [i["file_name"] for i in content["images"] if not (folder / "images" / i["file_name"]).is_file()]
    if lost:
        raise InputError(f"{folder}: found {len(lost)} images missing ({lost[0]}); remove the folder, and repeat")
    return True


# --- fetching ---------------------------------------------------------------------------------------------------------


class _Truncated(Exception):
    """An archive ends too early."""


class _Damaged(Exception):
    """An archive cannot be read, or a member has another hash than the list says."""


def fetch(chosen: OpenSet, wanted: Mapping[str, str], raw: Path, progress: bool = True) -> None:
    """Bring every listed file into ``raw``, each checked by its SHA-256.

    Args:
        chosen: The repository and commit.
        wanted: SHA-256 by path, as :func:`hashes` gives it.
        raw: An existing folder; files that are there with the right hash are kept.
        progress: Show bars on standard error.

    Raises:
        InputError: No connection, a file that is missing or has another hash, or an archive with members that no
            honest archive has (absolute paths, ``..``, links, too large ones). Nothing is written outside ``raw``.
    """
    missing = _missing(wanted, raw)
    if len(missing) > _singly(wanted) and _partial(raw).is_file():
        _salvage(_partial(raw), missing, raw)
    if len(missing) > _singly(wanted):
        _fetch_archive(chosen, missing, raw, progress)
    if len(missing) > _singly(wanted):
        raise InputError(
            f"{_archive_url(chosen)}: {len(missing)} of {len(wanted)} listed files are not in the archive "
            f"({next(iter(missing))}); it is no copy of the repository at this commit: check {BASE_VARIABLE}"
        )
    _fetch_singly(chosen, missing, raw, progress)
    _partial(raw).unlink(missing_ok=True)


def _singly(wanted: Mapping[str, str]) -> int:
    """The most files to fetch one by one; of a small list the archive is tried first."""
    return min(_SINGLY, len(wanted) // 2)


def _archive(raw: Path) -> Path:
    return raw / "archive.tar.gz"


def _partial(raw: Path) -> Path:
    return raw / "archive.tar.gz.partial"


def _missing(wanted: Mapping[str, str], raw: Path) -> dict[str, str]:
    return {name: sha256 for name, sha256 in wanted.items() if _sha256(raw / name) != sha256}


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def _base() -> str:
    base = os.environ.get(BASE_VARIABLE) or "https://github.com"
    if urlsplit(base).scheme not in ("http", "https") or not urlsplit(base).hostname:
        raise InputError(f"found {BASE_VARIABLE}={base!r}, expected an address such as https://github.com")
    return base.rstrip("/")


def _archive_url(chosen: OpenSet) -> str:
    return f"{_base()}/{chosen.repository}/archive/{chosen.commit}.tar.gz"


def _fetch_archive(chosen: OpenSet, missing: dict[str, str], raw: Path, progress: bool) -> None:
    """Download the archive and unpack it; takes what it finds out of ``missing``."""
    url, archive, total = _archive_url(chosen), _archive(raw), len(missing)
    problem = "nothing"
    for _ in range(3):
        joined = _download(url, archive, missing, raw, progress)
        try:
            unpack(archive, missing, raw, progress)
            archive.unlink()
            return
        except _Truncated as error:
            problem = str(error)
            os.replace(archive, _partial(raw))
        except _Damaged as error:
            problem = str(error)
            archive.unlink()
            if not joined:
                break
            # Pieces of two different archives may have been joined: once more, from the start.
        except InputError:
            archive.unlink()
            raise
    raise InputError(
        f"{url}: {problem}; {total - len(missing)} files were good and are kept: repeat, and if it stays so, "
        f"name another mirror in {BASE_VARIABLE}"
    )


def _download(url: str, archive: Path, missing: dict[str, str], raw: Path, progress: bool) -> bool:
    """Bring the archive to disk; True: it was joined from pieces."""
    import pooch

    pooch.get_logger().setLevel("WARNING")
    downloader = _Resuming(_partial(raw), progress)
    try:
        pooch.retrieve(url, known_hash=None, fname=archive.name, path=archive.parent, downloader=downloader)
    except InputError:
        if _partial(raw).is_file():
            _salvage(_partial(raw), missing, raw)
        raise
    return downloader.joined


class _Resuming:
    """A downloader for pooch that keeps what came before the connection was cut, and goes on there.

    Args:
        partial: The file to keep it in.
        progress: Show a bar on standard error.

    Attributes:
        joined: Whether the last download was put together from pieces.
    """

    def __init__(self, partial: Path, progress: bool):
        self.partial, self.progress, self.joined = partial, progress, False

    def __call__(self, url: str, output_file: str, pooch: Any) -> None:
        """Download ``url`` to ``output_file``; raises InputError."""
        import requests

        best, failures = 0, 0
        while True:
            try:
                self._stream(url)
                break
            except requests.RequestException as error:
                size = self._size()
                best, failures = (size, 0) if size >= best + _PROGRESS else (best, failures + 1)
                if failures > len(_WAITS) or not _is_passing(error):
                    raise InputError(_network_problem(error, url, size)) from None
                time.sleep(_WAITS[max(failures - 1, 0)])
        os.replace(self.partial, output_file)

    def _size(self) -> int:
        return self.partial.stat().st_size if self.partial.is_file() else 0

    def _stream(self, url: str) -> None:
        import requests
        from tqdm.auto import tqdm

        start = self._size()
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
        with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT) as response:
            if start and response.status_code == 416:
                self.joined = True  # Nothing follows what is here: it is whole, or its hashes will say it is not.
                return
            response.raise_for_status()
            given = response.headers.get("Content-Range", "")
            goes_on = response.status_code == 206 and given.startswith(f"bytes {start}-")
            if response.status_code == 206 and not goes_on:
                self.partial.unlink(missing_ok=True)
                raise requests.ConnectionError(f"asked for bytes from {start}, got {given!r}")
            self.joined, start = (True, start) if goes_on else (False, 0)
            length = response.headers.get("Content-Length", "")
            bar = tqdm(
                total=start + int(length) if length.isdigit() else None,
                initial=start,
                desc=f"fetching {urlsplit(url).hostname}",
                unit="B",
                unit_scale=True,
                disable=not self.progress,
                file=sys.stderr,
            )
            with bar, self.partial.open("ab" if goes_on else "wb") as file:
                for piece in response.iter_content(_CHUNK):
                    file.write(piece)
                    bar.update(len(piece))
                    if file.tell() > _MOST_ARCHIVE:
                        raise InputError(f"{url}: found more than {_MOST_ARCHIVE} bytes; check {BASE_VARIABLE}")


def _is_passing(error: Exception) -> bool:
    """Whether a new try may succeed."""
    import requests

    if isinstance(error, requests.HTTPError):
        return error.response is not None and error.response.status_code in _BUSY
    return isinstance(error, requests.ConnectionError | requests.Timeout | requests.exceptions.ChunkedEncodingError)


def _network_problem(error: Exception, url: str, received: int = 0) -> str:
    """One line for the user: what happened, and what to do."""
    import requests

    host = urlsplit(url).netloc
    if isinstance(error, requests.HTTPError) and error.response is not None:
        problem = f"{url}: {host} answered {error.response.status_code} {error.response.reason}"
    elif received:
        problem = f"the connection to {host} was cut after {received} bytes, which are kept"
    else:
        problem = f"found no connection to {host} ({type(error).__name__})"
    return (
        f"{problem}; check the network, or name a mirror in {BASE_VARIABLE}; the same command goes on where it stopped"
    )


def _fetch_singly(chosen: OpenSet, missing: dict[str, str], raw: Path, progress: bool) -> None:
    """Fetch the last files one by one."""
    if not missing:
        return
    import pooch
    import requests
    from tqdm.auto import tqdm

    pooch.get_logger().setLevel("WARNING")
    base = f"{_base()}/{chosen.repository}/raw/{chosen.commit}/"
    shelf = pooch.create(
        path=raw,
        base_url=base,
        registry={name: f"sha256:{sha256}" for name, sha256 in missing.items()},
        urls={name: base + quote(name) for name in missing},
        retry_if_failed=len(_WAITS),
    )
    downloader = pooch.HTTPDownloader(timeout=_TIMEOUT)
    for name in tqdm(list(missing), desc="fetching files", unit="file", disable=not progress, file=sys.stderr):
        try:
            shelf.fetch(name, downloader=downloader)
        except requests.RequestException as error:
            raise InputError(_network_problem(error, base + quote(name))) from None
        except ValueError:
            raise InputError(
                f"{base}{quote(name)}: found another SHA-256 than {missing[name]}; the file was changed: "
                f"check {BASE_VARIABLE}"
            ) from None
        del missing[name]


# --- unpacking --------------------------------------------------------------------------------------------------------


def unpack(archive: Path, missing: dict[str, str], raw: Path, progress: bool = False) -> None:
    """Write the missing members of a .tar.gz archive whose members lie in one folder; takes them out of ``missing``.

    Args:
        archive: The file.
        missing: SHA-256 by path without the outer folder; a member that is not listed is never written.
        raw: Where files go.
        progress: Show a bar on standard error.

    Raises:
        InputError: A member has an absolute path or ``..`` in it, is a link or a device, or is too large.
        _Truncated: The archive ends too early; whole members before that are kept.
        _Damaged: The archive is broken, or a listed member has another hash.
    """
    from tqdm.auto import tqdm

    bar = tqdm(total=len(missing), desc="unpacking", unit="file", disable=not progress, file=sys.stderr)
    try:
        with bar, gzip.open(archive) as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
            for member in tar:
                name = _inner_name(member, archive)
                if name in missing:
                    _put(raw / name, _checked(tar, member, missing[name]))
                    del missing[name]
                    bar.update()
            while stream.read(_CHUNK):  # To the end, where the checksum is.
                pass
    except EOFError:
        raise _Truncated("found an archive that ends too early") from None
    except (gzip.BadGzipFile, zlib.error, tarfile.TarError) as error:
        raise _Damaged(f"found a damaged archive ({error})") from None


def _inner_name(member: tarfile.TarInfo, archive: Path) -> str:
    """The path of a member without the outer folder; raises InputError for what does not belong in an archive."""
    path = PurePosixPath(member.name)
    problem = None
    if path.is_absolute() or ".." in path.parts or "\\" in member.name:
        problem = "a path that leads out of the archive"
    elif not (member.isfile() or member.isdir()):
        problem = "a link or a device"
    elif member.size > _MOST_MEMBER:
        problem = f"a file of {member.size} bytes, more than {_MOST_MEMBER}"
    if problem:
        raise InputError(
            f"{archive.name}: member {member.name!r} is {problem}; it was not written, and the archive was "
            f"removed: this is no copy of the repository, check {BASE_VARIABLE}"
        )
    return "/".join(path.parts[1:])


def _checked(tar: tarfile.TarFile, member: tarfile.TarInfo, sha256: str) -> bytes:
    file = tar.extractfile(member)
    content = file.read() if file else b""
    found = hashlib.sha256(content).hexdigest()
    if len(content) < member.size:
        raise _Truncated("found an archive that ends too early")
    if found != sha256:
        raise _Damaged(f"found SHA-256 {found} of {member.name}, expected {sha256}")
    return content


def _put(path: Path, content: bytes) -> None:
    """Write a file whole or not at all; without waiting for the disk, as its hash is checked again after a crash."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(content)
    os.replace(temporary, path)


def _salvage(archive: Path, missing: dict[str, str], raw: Path) -> None:
    """Keep the whole members of a partial archive; remove one that is no good."""
    try:
        unpack(archive, missing, raw)
    except _Truncated:
        return
    except _Damaged:
        archive.unlink()
    except InputError:
        archive.unlink()
        raise


# --- conversion -------------------------------------------------------------------------------------------------------


def convert(chosen: OpenSet, raw: Path, folder: Path, progress: bool = True) -> None:
    """Write the raw files of ``raw`` as a COCO keypoints folder of square crops.

    Args:
        chosen: How to read and to crop.
        raw: A folder with all raw files.
        folder: The folder to write; what is there is removed.
        progress: Show a bar on standard error.

    Raises:
        InputError: A raw file is not what it should be; the message names it.
    """
    from tqdm.auto import tqdm

    shutil.rmtree(folder, ignore_errors=True)
    (folder / "images").mkdir(parents=True)
    images, annotations = [], []
    items = sorted(chosen.read(raw), key=lambda item: item.file.name)
    bar = tqdm(items, desc=f"converting {chosen.name}", unit="image", disable=not progress, file=sys.stderr)
    for number, item in enumerate(bar, 1):
        picture, points = crop(_read_rgb(item.file), item.points, chosen.margin)
        (folder / "images" / item.file.name).write_bytes(_jpeg(picture))
        entry = {"id": number, "file_name": item.file.name, "width": _SIZE, "height": _SIZE}
        images.append(entry | dict(item.extras))
        annotations.append(_annotation(number, points))
    content = {
        "info": {"description": f"{chosen.what}; {chosen.citation}", "source": chosen.source},
        "licenses": [{"id": 1, "name": chosen.licence}],
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, **chosen.category}],
    }
    (folder / "keypoints.json").write_text(json.dumps(content), encoding="utf-8")


def _annotation(number: int, points: np.ndarray) -> dict[str, Any]:
    known = np.isfinite(points).all(axis=1)
    triples = [
        [round(float(x), 2), round(float(y), 2), 2] if k else [0, 0, 0] for (x, y), k in zip(points, known, strict=True)
    ]
    return {
        "id": number,
        "image_id": number,
        "category_id": 1,
        "keypoints": [value for triple in triples for value in triple],
        "num_keypoints": int(known.sum()),
        "bbox": [0, 0, _SIZE, _SIZE],
    }


def crop(image: np.ndarray, points: np.ndarray, margin: float, size: int = _SIZE) -> tuple[np.ndarray, np.ndarray]:
    """Cut a square round landmarks and shrink or enlarge it.

    The square has the centre of the landmarks' box and ``margin`` times its longer side, not rounded to whole pixels.
    Edge pixels are repeated where it reaches over the image.

    Args:
        image: uint8 ``(H, W, 3)``.
        points: ``(L, 2)``, (x, y) in pixels, centre of the first pixel at (0.5, 0.5); NaN where missing.
        margin: Side of the square in units of the longer side of the box.
        size: Side of the result in pixels.

    Returns:
        uint8 ``(size, size, 3)``, and the landmarks in its pixels, float64 ``(L, 2)``.

    Raises:
        InputError: The landmarks do not span a box.
    """
    if not np.isfinite(points).all(axis=1).any() or not (extent := np.ptp(_known(points), axis=0).max()) > 0:
        raise InputError(f"found landmarks that span no box ({points.tolist()[:3]}), expected at least two places")
    low, high = _known(points).min(axis=0), _known(points).max(axis=0)
    side = margin * float(extent)
    corner = (low + high) / 2 - side / 2
    first, last = np.floor(corner).astype(int), np.ceil(corner + side).astype(int)
    columns = np.clip(np.arange(first[0], last[0]), 0, image.shape[1] - 1)
    rows = np.clip(np.arange(first[1], last[1]), 0, image.shape[0] - 1)
    start = corner - first
    end = np.minimum(start + side, last - first)
    cut = Image.fromarray(image[rows[:, None], columns[None]])
    picture = cut.resize((size, size), Image.Resampling.LANCZOS, box=(*start.tolist(), *end.tolist()))
    return np.asarray(picture), (points - corner) * (size / side)


def _known(points: np.ndarray) -> np.ndarray:
    return points[np.isfinite(points).all(axis=1)]


def _read_rgb(path: Path) -> np.ndarray:
    """uint8 ``(H, W, 3)``; pixels as stored, as the landmarks were placed on these, and without transparency."""
    try:
        with Image.open(path) as opened:
            return np.asarray(opened.convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(f"{path}: found a damaged image ({error}); remove it, and repeat") from None


def _jpeg(picture: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=_JPEG_QUALITY)
    return file.getvalue()


def _faces(raw: Path, part: str = "training") -> list[Labelled]:
    """Frames of YouTube Faces: 68 landmarks each, counted from pixel 0, placed by a tracker.

    The file name is the subject, one digit for the video, two for the frame (``Name_21.jpg``: video 2, frame 21). The
    part ``test`` has other frames of the same videos under the same names, so it is not used.
    """
    table = raw / "data" / f"{part}_frames_keypoints.csv"
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))[1:]
    items = []
    for name, *values in rows:
        match = re.fullmatch(r"(.+)_(\d)(\d)\.jpg", name)
        try:
            points = np.array(values, np.float64).reshape(68, 2)
        except ValueError:
            points = np.full((68, 2), np.nan)
        if not match or not np.isfinite(points).all():
            raise InputError(f"{table}: found a row {name!r} with {len(values)} values, expected NAME_21.jpg and 136")
        extras = {"video": f"{match[1]}_{match[2]}", "frame": int(match[2] + match[3]), "subject": match[1]}
        items.append(Labelled(raw / "data" / part / name, points + 0.5, extras))
    return items


def _people(raw: Path) -> list[Labelled]:
    """People in sports: 14 joints each, counted from pixel 1 (MATLAB); those of at least twelve visible joints.

    The place of a hidden joint is not given, so it is missing here.
    """
    import scipy.io

    table = raw / "joints.mat"
    try:
        joints = np.asarray(scipy.io.loadmat(table, variable_names=["joints"])["joints"], np.float64)
    except (KeyError, ValueError, TypeError, NotImplementedError, scipy.io.matlab.MatReadError) as error:
        raise InputError(f"{table}: found no array 'joints' ({error}); remove it, and repeat") from None
    if joints.ndim != 3 or joints.shape[:2] != (14, 3):
        raise InputError(f"{table}: found 'joints' of shape {joints.shape}, expected (14, 3, images); remove it")
    points = joints[:, :2].transpose(2, 0, 1) - 0.5
    points[(joints[:, 2] != 1).T] = np.nan
    counts = np.isfinite(points).all(axis=2).sum(axis=1)
    files = [raw / "images" / f"im{i + 1:05d}.jpg" for i in range(len(points))]
    return [Labelled(files[i], points[i], {}) for i in np.flatnonzero(counts >= _LEAST_VISIBLE)]


_JOINTS = (
    *("right ankle", "right knee", "right hip", "left hip", "left knee", "left ankle"),
    *("right wrist", "right elbow", "right shoulder", "left shoulder", "left elbow", "left wrist"),
    *("neck", "head top"),
)


def _lines(*chains: Sequence[int]) -> list[list[int]]:
    """COCO counts landmarks from 1."""
    return [[a + 1, b + 1] for chain in chains for a, b in pairwise(chain)]


SETS: dict[str, OpenSet] = {
    entry.name: entry
    for entry in (
        OpenSet(
            name="faces-ytf",
            repository="udacity/P1_Facial_Keypoints",
            commit="6e55adc6bd032d9fb1ad41a4c3e68aae847cdf81",
            what="photographs: frames of YouTube Faces, 68 landmarks",
            category={"name": "face", "keypoints": [f"ibug-{i:02d}" for i in range(1, 69)]},
            margin=1.6,
            licence="for research",
            citation="Wolf, Hassner and Maoz 2011, Face recognition in unconstrained videos",
            read=_faces,
        ),
        OpenSet(
            name="people-lsp",
            repository="axelcarlier/lsp",
            commit="8fabf3183516b1be5f9d44bd1c516609637e983e",
            what="photographs: people in sports, 14 joints",
            category={
                "name": "person",
                "keypoints": list(_JOINTS),
                "skeleton": _lines((0, 1, 2, 3, 4, 5), (6, 7, 8, 12, 9, 10, 11), (12, 13), (8, 2), (9, 3)),
            },
            margin=1.5,
            licence="for research",
            citation="Johnson and Everingham 2011, Learning effective human pose estimation from inaccurate annotation",
            read=_people,
        ),
    )
}
"""The open data sets by name."""
