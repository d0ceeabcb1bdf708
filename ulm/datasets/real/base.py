"""What the loaders of the papers' data sets share: records, crops, the catalogue's entries, clear errors.

A loader reads the official distribution into :class:`Record` objects, one an item, and hands them to
:class:`RealDataset`, which reads the pictures, cuts them and moves the landmarks along.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image

from ulm.datasets.base import Dataset, Info, Sample, check_index, check_split
from ulm.datasets.folder import contents_digest, to_tensor
from ulm.datasets.hashing import digest
from ulm.datasets.images import Square, cut, read_image, whole
from ulm.errors import InputError

Reader = str | Path | Callable[[], np.ndarray]
"""An image file, or a function without arguments that returns the pixels."""

VAL_SHARE = 0.05
"""Share of the training subjects that become ``val`` where the official data has no validation part."""

_LARGEST_WINDOW = 20  # times the longer side of the image; more is a damaged annotation, and would fill the memory
_SAMPLED_FILES = 64
_NOTHING: Mapping[str, Any] = MappingProxyType({})


# --- crops ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Window:
    """A rectangle of an image, in fractions of pixels; it is squashed to a square and may reach over the edges.

    Attributes:
        x0: Left edge; 0 is the left edge of the first pixel.
        y0: Upper edge.
        x1: Right edge.
        y1: Lower edge.
        fill: Grey value of what lies outside the image; None repeats the edge pixels.
    """

    x0: float
    y0: float
    x1: float
    y1: float
    fill: int | None = None

    def on(self, width: int, height: int) -> Window:
        """The window itself, which does not depend on the image's size."""
        return self

    def to_square(self, points: np.ndarray, size: int) -> np.ndarray:
        """Map ``(..., 2)`` points from the image to the window drawn at ``size`` x ``size`` pixels."""
        return (np.asarray(points, np.float64) - (self.x0, self.y0)) * self._scale(size)

    def to_image(self, points: np.ndarray, size: int) -> np.ndarray:
        """Undo :meth:`to_square`."""
        return np.asarray(points, np.float64) / self._scale(size) + (self.x0, self.y0)

    def _scale(self, size: int) -> np.ndarray:
        return size / np.array([self.x1 - self.x0, self.y1 - self.y0])


@dataclass(frozen=True)
class Centre:
    """The middle of an image, squashed to a square: ``keep`` of its width and ``keep`` of its height.

    ``Centre(0.8)`` is the crop of IMM (resize to 160 x 160, keep the central 128 x 128); ``Centre(1.0)`` squashes the
    whole picture, as StableKeypoints does.
    """

    keep: float = 1.0

    def on(self, width: int, height: int) -> Window:
        """The window in an image of this size."""
        x, y = width * (1 - self.keep) / 2, height * (1 - self.keep) / 2
        return Window(x, y, width - x, height - y)


@dataclass(frozen=True)
class Clipped:
    """The part of a rectangle that lies inside the image, squashed to a square.

    Attributes:
        x0: Left edge; 0 is the left edge of the first pixel.
        y0: Upper edge.
        x1: Right edge.
        y1: Lower edge.
    """

    x0: float
    y0: float
    x1: float
    y1: float

    def on(self, width: int, height: int) -> Window:
        """The window in an image of this size."""
        return Window(max(self.x0, 0), max(self.y0, 0), min(self.x1, width), min(self.y1, height))


class Crop(Protocol):
    """What can be a crop besides a ``Square``: a frozen dataclass (its repr goes into the fingerprint)."""

    def on(self, width: int, height: int) -> Window | Square:
        """The crop in an image of this size in pixels."""
        ...


def cut_window(image: np.ndarray, window: Window, size: int) -> np.ndarray:
    """Cut ``window`` out of an image and resize it, antialiased (Lanczos); exact for fractions of a pixel.

    Args:
        image: uint8 ``(H, W, 3)``.
        window: What to cut.
        size: Side of the result in pixels.

    Returns:
        uint8 ``(size, size, 3)``.

    Raises:
        InputError: The window is empty, not finite, or far larger than the image.
    """
    height, width = image.shape[:2]
    sides = (window.x1 - window.x0, window.y1 - window.y0)
    edges = (window.x0, window.y0, window.x1, window.y1)
    if not all(map(math.isfinite, edges)) or min(sides) <= 0 or max(sides) > _LARGEST_WINDOW * max(width, height):
        raise InputError(
            f"found a crop of {sides[0]:g} x {sides[1]:g} pixels at ({window.x0:g}, {window.y0:g}) of an image of "
            f"{width} x {height}, expected a rectangle round the object; mend the annotation, or leave the image out"
        )
    if window.x0 < 0 or window.y0 < 0 or window.x1 > width or window.y1 > height:
        image, dx, dy = _extend(image, window, size)
        edges = (window.x0 - dx, window.y0 - dy, window.x1 - dx, window.y1 - dy)
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.LANCZOS, box=edges))


def _extend(image: np.ndarray, window: Window, size: int) -> tuple[np.ndarray, int, int]:
    """The image over the whole window and what the filter reaches beyond it, and where its first pixel lies."""
    height, width = image.shape[:2]
    reach = math.ceil(3 * max(1.0, (window.x1 - window.x0) / size, (window.y1 - window.y0) / size))
    columns = np.arange(math.floor(window.x0) - reach, math.ceil(window.x1) + reach)
    rows = np.arange(math.floor(window.y0) - reach, math.ceil(window.y1) + reach)
    extended = image[np.clip(rows, 0, height - 1)[:, None], np.clip(columns, 0, width - 1)[None]]
    if window.fill is not None:
        outside = ((rows < 0) | (rows >= height))[:, None] | ((columns < 0) | (columns >= width))[None]
        extended[outside] = window.fill
    return extended, int(columns[0]), int(rows[0])


# --- records and the data set -----------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, slots=True)
class Record:
    """One item of a data set, before its picture is read.

    Attributes:
        image: The image file, or a function that returns uint8 ``(H, W, 3)``.
        name: A name that is unique in the data set and does not depend on the place of the folder.
        landmarks: ``(L, 2)``, (x, y) in pixels of the file, origin at the *corner* of its first pixel (a pixel that
            the annotation counts from 0 has its centre at + 0.5; from 1, at - 0.5); NaN where missing.
        visible: bool ``(L,)``; None: visible where not missing.
        crop: What is cut out; None: the whole picture, padded to a square.
        box: x0, y0, x1, y1 of the object in pixels of the file.
        mask: A file or a function: ``(H, W)`` or ``(H, W, 3)``, the object where it is at least half of white; a
            function may return bool.
        video: Of what video this is a frame.
        frame: Its number in the video.
        subject: Who or what it shows.
        yaw: Degrees; positive: the face turns to the image's right.
        extra: Further values of the item, such as ``azimuth``: numbers or strings.
    """

    image: Reader
    name: str
    landmarks: np.ndarray
    visible: np.ndarray | None = None
    crop: Square | Crop | None = None
    box: Sequence[float] | np.ndarray | None = None
    mask: Reader | None = None
    video: str | None = None
    frame: int | None = None
    subject: str | None = None
    yaw: float | None = None
    extra: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)


class RealDataset(Dataset):
    """Pictures and landmarks of one split of an official data set.

    Args:
        info: What the data set says of itself.
        records: All items of the split, in the official order.
        split: The name of the split.
        size: Side of the images in pixels.
        limit: Most items to keep, evenly spread.
        sources: Files that hold the pictures of records whose ``image`` is a function (they go into the fingerprint).

    Raises:
        InputError: The split is unknown or empty.
    """

    def __init__(
        self,
        info: Info,
        records: Sequence[Record],
        split: str,
        size: int,
        limit: int | None = None,
        sources: Sequence[Path] = (),
    ):
        self.info, self.split, self.size = info, check_split(split), size
        if not records:
            raise InputError(f"found no items in split {split!r} of {info.name}; use another split, or 'all'")
        self.records = [records[i] for i in spread(len(records), limit)]
        self.sources = tuple(sources)
        # A batch needs the same keys in every item.
        self._plain = [
            k for k in ("video", "frame", "subject", "yaw") if any(getattr(r, k) is not None for r in records)
        ]
        self._extra = sorted({key for record in records for key in record.extra})
        self._boxed = all(record.box is not None for record in records)
        self._masked = all(record.mask is not None for record in records)
        self._fingerprint = ""

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Sample:
        record = self.records[check_index(index, len(self))]
        try:
            return self._item(record)
        except InputError as error:
            # An error of reading already begins with the file's name.
            known = isinstance(record.image, str | Path) and str(record.image) in str(error)
            raise InputError(str(error) if known else f"{record.name}: {error}") from None

    @property
    def fingerprint(self) -> str:
        """Twelve hexadecimal digits of the labels, crops, file names and file sizes, not of the folder's place.

        The contents of 64 files, evenly spread, go in too. Those of all files do not: hashing 200,000 pictures takes
        many minutes. So a set whose pictures were edited, with every size and these 64 files left alone, is not
        noticed.
        """
        if not self._fingerprint:
            files = [Path(r.image) for r in self.records if isinstance(r.image, str | Path)]
            sampled = [files[i] for i in spread(len(files), _SAMPLED_FILES)]
            self._fingerprint = digest(
                self.info.name.partition(":")[0],
                list(self.info.landmark_names),
                _labels_digest(self.records),
                [os.stat(file).st_size if file.is_file() else None for file in files],
                [(source.name, source.stat().st_size) for source in self.sources],
                contents_digest([file for file in sampled if file.is_file()]),
            )
        return self._fingerprint

    def _item(self, record: Record) -> Sample:
        image = _read(record.image)
        crop = placed(record.crop, image.shape[1], image.shape[0])
        pixels = cut(image, crop, self.size) if isinstance(crop, Square) else cut_window(image, crop, self.size)
        landmarks = crop.to_square(record.landmarks, self.size)
        known = np.isfinite(landmarks).all(axis=1)
        landmarks[~known] = np.nan
        visible = known if record.visible is None else known & np.asarray(record.visible, bool)
        item: Sample = {
            "image": to_tensor(pixels),
            "landmarks": torch.from_numpy(landmarks).float(),
            "visible": torch.from_numpy(visible),
            "name": record.name,
        }
        if self._boxed:
            corners = crop.to_square(np.asarray(record.box, np.float64).reshape(2, 2), self.size)
            item["box"] = torch.from_numpy(corners.reshape(4)).float()
        if self._masked:
            item["mask"] = torch.from_numpy(_cut_mask(record.mask, crop, self.size))
        item |= {key: getattr(record, key) for key in self._plain}
        return item | {key: record.extra.get(key) for key in self._extra}


def placed(crop: Square | Crop | None, width: int, height: int) -> Window | Square:
    """The crop in an image of this size; None is the whole image, padded to a square."""
    if crop is None:
        return whole(width, height)
    return crop if isinstance(crop, Square) else crop.on(width, height)


def _read(reader: Reader) -> np.ndarray:
    if isinstance(reader, str | Path):
        return read_image(reader)
    image = np.asarray(reader())
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise InputError(f"found a picture of {image.dtype} {image.shape}, expected uint8 (H, W, 3); check the files")
    return image


def _cut_mask(reader: Reader | None, crop: Window | Square, size: int) -> np.ndarray:
    mask = read_image(reader) if isinstance(reader, str | Path) else np.asarray(reader())
    mask = mask[..., 0] if mask.ndim == 3 else mask
    mask = mask.astype(np.uint8) * 255 if mask.dtype == bool else mask
    if isinstance(crop, Square):
        crop = Window(crop.x0, crop.y0, crop.x0 + crop.side, crop.y0 + crop.side)
    outside_is_not_the_object = Window(crop.x0, crop.y0, crop.x1, crop.y1, fill=0)
    return cut_window(np.repeat(mask[..., None], 3, axis=2), outside_is_not_the_object, size)[..., 0] >= 128


def _labels_digest(records: Sequence[Record]) -> str:
    total = hashlib.sha256()
    for r in records:
        rest = (r.name, repr(r.crop), r.video, r.frame, r.subject, r.yaw, sorted(r.extra.items()))
        total.update(repr(rest).encode())
        for values in (r.landmarks, r.visible, r.box):
            total.update(b"-" if values is None else np.ascontiguousarray(values, np.float64).tobytes())
    return total.hexdigest()


def spread(count: int, limit: int | None) -> list[int]:
    """Indices of at most ``limit`` of ``count`` items, evenly spread; raises InputError for a limit below 1."""
    if limit is not None and limit < 1:
        raise InputError(f"found limit {limit}, expected at least 1")
    return list(range(count)) if limit is None or limit >= count else [i * count // limit for i in range(limit)]


def is_val(key: str, share: float = VAL_SHARE) -> bool:
    """Whether a training subject or file belongs to ``val`` where the official data has none.

    It depends on the SHA-256 of the key alone, so it is the same everywhere and adding images moves no other.
    """
    return int(hashlib.sha256(key.encode()).hexdigest()[:8], 16) / 2**32 < share


# --- the catalogue ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Problem:
    """What a check found.

    Attributes:
        kind: ``error`` (it cannot be used) or ``warning`` (it differs from the official data).
        text: One sentence.
    """

    kind: str
    text: str


@dataclass(frozen=True)
class Source:
    """An official data set: what it is, how one gets it, who reads it.

    Attributes:
        name: As in the specification, such as ``mafl``.
        title: Full name.
        standin: The specification of the procedural scene that stands in for it.
        landmarks: Number of annotated landmarks; 0 where there are none.
        licence: Short licence statement.
        access: How one gets it.
        site: Where, in words.
        splits: The splits and their sizes.
        normaliser: How errors are normalised, a key of ``ulm.evaluation.NORMALISERS``.
        citation: Whom to cite.
        layout: Expected relative paths; alternatives are joined by `` or ``, and ``*`` stands for anything.
        loader: Module and function ``(root, split, size, limit) -> Dataset``.
        checker: Module and function ``(root) -> list[Problem]``.
        other_layout: What another distribution of the same data set has instead of ``layout``.
    """

    name: str
    title: str
    standin: str
    landmarks: int
    licence: str
    access: str
    site: str
    splits: str
    normaliser: str
    citation: str
    layout: tuple[str, ...]
    loader: tuple[str, str]
    checker: tuple[str, str]
    other_layout: tuple[str, ...] = ()

    @property
    def spec(self) -> str:
        """How it is named in ``ulm.datasets.load``, such as ``mafl:ROOT``."""
        return f"{self.name}:ROOT"

    @property
    def where(self) -> str:
        """How and where one gets it, for the error messages."""
        return f"{self.site} ({self.access})"

    def load(self, root: str | Path, split: str = "train", size: int = 128, limit: int | None = None) -> Dataset:
        """Load a split from the folder ``root``; raises InputError for missing or damaged parts."""
        return getattr(import_module(self.loader[0]), self.loader[1])(str(root), split, size, limit)

    def present(self, root: str | Path) -> bool:
        """Whether all parts of a layout are in the folder; quick, nothing is read."""
        layouts = [layout for layout in (self.layout, self.other_layout) if layout]
        return Path(root).is_dir() and any(all(find(root, p) for p in layout) for layout in layouts)

    def check(self, root: str | Path) -> list[Problem]:
        """Compare the folder with the official data; an error of loading becomes one ``Problem`` of kind error."""
        try:
            return getattr(import_module(self.checker[0]), self.checker[1])(str(root))
        except InputError as error:
            return [Problem("error", str(error))]

    def need(self, root: str | Path, layout: Sequence[str] | None = None) -> list[Path]:
        """The paths of the layout in ``root``; see :func:`need`."""
        return need(root, self.layout if layout is None else layout, self.title, self.where)

    def info(self, root: str | Path, **fields: Any) -> Info:
        """The ``Info`` of the data set at ``root``; ``fields`` are the other attributes of it."""
        common = {"normaliser": self.normaliser, "licence": self.licence, "citation": self.citation}
        return Info(name=f"{self.name}:{root}", **(common | fields))


def check_splits(source: Source, root: str | Path, counts: Mapping[str, int]) -> list[Problem]:
    """Load each split of ``counts`` and compare its length with the official one; differences are warnings."""
    found = {split: len(source.load(root, split, 64)) for split in counts}
    return compare(found, counts, source.title, "items in split ")


def compare(found: Mapping[str, int], expected: Mapping[str, int], title: str, what: str = "") -> list[Problem]:
    """A warning for each number that differs from the official data set."""
    return [
        Problem("warning", f"found {found.get(key, 0):,} {what}{key}, expected {count:,} as in the whole {title}")
        for key, count in expected.items()
        if found.get(key, 0) != count
    ]


# --- files ------------------------------------------------------------------------------------------------------------


def need(root: str | Path, patterns: Sequence[str], what: str, where: str) -> list[Path]:
    """Find the parts of a data set in its folder.

    Args:
        root: The folder.
        patterns: Relative paths; ``a or b`` are alternatives, ``*`` stands for anything.
        what: The data set's title, for the error.
        where: How and where one gets it, for the error.

    Returns:
        The first match of each pattern.

    Raises:
        InputError: Parts are missing; one message says what was found, what is expected and where to get it.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(
            f"found no folder {root}, expected {what} with {', '.join(patterns)}; get it at {where}, unpack it, "
            "and give its folder"
        )
    matches = [_first_match(root, pattern) for pattern in patterns]
    lacking = [pattern for pattern, path in zip(patterns, matches, strict=True) if path is None]
    if lacking:
        wanted = f" with {', '.join(patterns)}" if len(lacking) < len(patterns) else ""
        raise InputError(
            f"{root}: found {_what_is_there(root)}, but not {', '.join(lacking)}; expected {what}{wanted}; "
            f"{_advice(root, patterns)}get the missing parts at {where}"
        )
    return [path for path in matches if path is not None]


def find(root: str | Path, pattern: str) -> Path | None:
    """The first match of a pattern as in :func:`need`, or None."""
    return _first_match(Path(root), pattern)


def _first_match(root: Path, pattern: str) -> Path | None:
    for alternative in pattern.split(" or "):
        relative = alternative.strip().rstrip("/")
        # Sorting a pattern of several folders would list every file of a large data set.
        matches = sorted(root.glob(relative)) if relative.count("*") == 1 else root.glob(relative)
        path = next(iter(matches), None)
        # An empty folder is one whose archive was not unpacked.
        if path is not None and not (path.is_dir() and not any(path.iterdir())):
            return path
    return None


def _what_is_there(root: Path) -> str:
    names = sorted(p.name + "/" * p.is_dir() for p in root.iterdir() if not p.name.startswith("."))
    return (", ".join(names[:8]) + (", ..." if len(names) > 8 else "")) if names else "an empty folder"


def _advice(root: Path, patterns: Sequence[str]) -> str:
    """What is likely wrong: the folder above or below was given, or an archive is still packed."""
    near = [root.parent, *sorted(p for p in root.iterdir() if p.is_dir())]
    better = next((p for p in near if all(_first_match(p, pattern) for pattern in patterns)), None)
    if better is not None:
        return f"give {better} instead, or "
    here = (path.name for pattern in ("*", "*/*") for path in root.glob(pattern))
    packed = sorted(n for n in here if n.endswith((".zip", ".7z", ".7z.001", ".tar", ".gz", ".tgz", ".rar")))
    return f"unpack {', '.join(packed[:3])}{', ...' if len(packed) > 3 else ''}, or " if packed else ""


def present(folder: Path, names: Iterable[str], what: str, where: str, may_lack: Iterable[str] = ()) -> set[str]:
    """Which of the listed files a folder holds: all of them, but for ``may_lack``.

    Args:
        folder: Where they lie.
        names: File names relative to it.
        what: What lists them, for the error.
        where: How and where one gets them, for the error.
        may_lack: Names that official copies are known to lack.

    Raises:
        InputError: Some are missing, so the folder was not fully unpacked or copied.
    """
    names = list(dict.fromkeys(names))
    listed: dict[str, set[str]] = {}
    for parent in {os.path.dirname(name) for name in names}:
        place = folder / parent
        listed[parent] = set(os.listdir(place)) if place.is_dir() else set()
    lost = {name for name in names if os.path.basename(name) not in listed[os.path.dirname(name)]}
    known = set(may_lack)
    wrong = [name for name in names if name in lost and name not in known]
    if wrong:
        raise InputError(
            f"{folder}: found {len(names) - len(lost)} of the {len(names)} images that {what} names (missing: "
            f"{', '.join(wrong[:3])}{', ...' if len(wrong) > 3 else ''}), expected all; unpack or copy the "
            f"images again, or get them at {where}"
        )
    return set(names) - lost


def remembered(files: Sequence[Path], what: str, compute: Callable[[], np.ndarray]) -> np.ndarray:
    """What ``compute`` returns, kept in the cache folder until one of the files changes.

    For labels that lie in tens of thousands of small files, which take a minute to read.

    Args:
        files: What the array is computed from; their paths, sizes and times of the last change are the key.
        what: A word for the file's name.
        compute: Returns an array of numbers.
    """
    from ulm.datasets.cache import cache_folder
    from ulm.runs import atomic_write

    stats = [(str(file.absolute()), (stat := file.stat()).st_size, stat.st_mtime_ns) for file in files]
    place = cache_folder() / "labels" / f"{what}-{hashlib.sha256(repr(stats).encode()).hexdigest()[:24]}.npy"
    try:
        return np.load(place, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        values = compute()
    buffer = io.BytesIO()
    np.save(buffer, values, allow_pickle=False)
    try:
        atomic_write(place, buffer.getvalue())
    except OSError:
        return values  # A cache that cannot be written (read-only home, full disk) costs time, nothing else.
    return values


def read_lines(path: Path) -> list[str]:
    """The lines of a text file that are not blank, stripped; raises InputError if it is no text."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: found no readable text ({error}); copy the file again") from None
    return [line.strip() for line in text.splitlines() if line.strip()]


def numbers(words: Sequence[str], count: int, path: Path, line: int) -> list[float]:
    """Exactly ``count`` numbers (``nan`` is one) from the words of a line.

    Raises:
        InputError: Too few, too many, or no numbers; the message names the file and the line (counted from 1).
    """
    try:
        values = [float(word) for word in words]
    except ValueError as error:
        raise InputError(f"{path}, line {line}: found {error}, expected {count} numbers; copy the file again") from None
    if len(values) != count or any(math.isinf(value) for value in values):
        raise InputError(
            f"{path}, line {line}: found {len(values)} numbers, expected {count} finite ones; copy the file again"
        )
    return values
