"""Human3.6M: actors before four cameras, 32 joints; the simplified pictures, or the frames of h36m-fetch.

Simplified (128 x 128 crops of Zhang et al., CVPR 2018)::

    S1/WithBackground/<Action>.<camera>/<frame>.jpg
    S1/BackgroudMask/<Action>.<camera>/<frame>.png      (the name is misspelt on disk; its pixels are 0 and 1)
    S1/Landmarks/<Action>.<camera>/<frame>.mat          (keypoints_2d, 32 x 2, (row, column), edges at 0 and 1)

h36m-fetch (every fifth frame of the videos, about 1000 x 1000 pixels)::

    S1/<Action>/imageSequence/<camera>/img_000001.jpg
    S1/<Action>/annot.h5                                (camera, frame, pose/2d: N x 32 x 2, (x, y) in pixels)
"""

from __future__ import annotations

import hashlib
import io
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ulm.datasets.base import check_split
from ulm.datasets.images import image_size, read_image, resize
from ulm.datasets.real.base import Centre, Problem, RealDataset, Record, Window, compare, find, is_val, spread
from ulm.datasets.real.catalogue_others import HUMAN36M
from ulm.datasets.real.formats import folder_and_options, read_matlab
from ulm.errors import InputError

# Human3.6M's own order (Hips, RightUpLeg, RightLeg, ...), under the names that its users gave it.
LANDMARK_NAMES = (
    "Hip", "RHip", "RKnee", "RFoot", "RToeBase", "RToeEnd", "LHip", "LKnee", "LFoot", "LToeBase", "LToeEnd",
    "SpineBase", "Spine", "Thorax", "Neck/Nose", "Head", "LCollar", "LShoulder", "LElbow", "LWrist", "LThumbBase",
    "LThumbEnd", "LHandEnd", "LHandSite", "RCollar", "RShoulder", "RElbow", "RWrist", "RThumbBase", "RThumbEnd",
    "RHandEnd", "RHandSite",
)  # fmt: skip
FLIP_PAIRS = (*((i + 5, i) for i in range(1, 6)), *((i, i + 8) for i in range(16, 24)))
SKELETON = (
    (0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (0, 6), (6, 7), (7, 8), (8, 9), (9, 10), (0, 12), (12, 13), (13, 14),
    (14, 15), (13, 17), (17, 18), (18, 19), (19, 21), (19, 22), (13, 25), (25, 26), (26, 27), (27, 29), (27, 30),
)  # fmt: skip

PUBLISHED_SWAPS = (
    (1, 6), (2, 7), (3, 8), (4, 9), (5, 10), (17, 25), (18, 26), (19, 27), (20, 28), (21, 28), (22, 30), (23, 31),
)  # fmt: skip
"""The pairs that AutoLink and StableKeypoints exchange: joint 28 appears twice and 29 never, so it is no permutation.
The published errors carry it; :data:`FLIP_PAIRS` is the right one."""

COUNTS = {"train": 796_648, "test": 87_975}
"""Frames of the simplified pictures; ``val`` is carved out of ``train``."""
FETCHED_COUNTS = {"train": 159_444, "test": 17_615}
"""Frames of h36m-fetch."""

SUBJECTS = {"train": ("S1", "S5", "S6", "S7", "S8", "S9"), "test": ("S11",)}
ACTIONS = ("Directions", "Discussion", "Greeting", "Posing", "Waiting", "Walking")
MARGIN = 100  # most pixels round the pose, in the frames of h36m-fetch

_PICTURES, _MASKS, _LANDMARKS = "WithBackground", "BackgroudMask", "Landmarks"
_SAMPLED = 64
_NUMBER = re.compile(r"(\d+)\.jpg")


@dataclass(frozen=True)
class RoundPose:
    """A square round the pose with up to 100 pixels on each side, cut off at the image's edges.

    As in StableKeypoints' unaligned pictures, without their random shift of up to 100 pixels: theirs is random in the
    test too, so no two measurements agree.
    """

    x0: float
    y0: float
    x1: float
    y1: float

    def on(self, width: int, height: int) -> Window:
        """The part of it that lies in an image of this size."""
        side = max(self.x1 - self.x0, self.y1 - self.y0)
        half_width = side / 2 + max(0.0, min(MARGIN, width - side))
        half_height = side / 2 + max(0.0, min(MARGIN, height - side))
        x, y = (self.x0 + self.x1) / 2, (self.y0 + self.y1) / 2
        left, top = max(0.0, x - half_width), max(0.0, y - half_height)
        return Window(left, top, min(float(width), x + half_width), min(float(height), y + half_height))


@dataclass(frozen=True)
class _Frame:
    """A frame: whose, of which folder (action and camera), which number."""

    subject: str
    folder: str
    number: int
    picture: Path

    @property
    def sequence(self) -> str:
        """What the four cameras saw at once."""
        return f"{self.subject}/{self.folder.replace('/', '.').rsplit('.', 1)[0]}"


def human36m(root: str, split: str = "train", size: int = 128, limit: int | None = None) -> RealDataset:
    """Load Human3.6M in the protocol of Zhang et al. (CVPR 2018).

    ``test`` is subject S11, ``train`` are S1 and S5 to S9 but for ``val``, about 5 % of the sequences (all four cameras
    of one take) by a hash of their names; six actions: directions, discussion, greeting, posing, waiting, walking.

    Reading the landmarks of all 900,000 simplified frames takes many minutes the first time; they are then kept in the
    cache folder. With a ``limit`` only the files that are needed are read.

    Args:
        root: The folder with ``S1`` ... ``S11`` (or the one that holds ``human_images``), in either layout. The
            simplified pictures are multiplied by their masks, as AutoLink and StableKeypoints do; ``#background``
            after the folder keeps the background (and gives the mask beside it).
        split: train, val, test or all.
        size: Side of the images in pixels.
        limit: Most items to keep, evenly spread.

    Returns:
        Items with ``subject``, ``video`` (subject, action and camera), ``frame`` and ``action``.

    Raises:
        InputError: Parts are missing or damaged, or an option is unknown.
    """
    folder, options = _folder(root)
    fetched = _is_fetched(folder)
    parts = [p for p in SUBJECTS if check_split(split) in (p, "all") or (p, split) == ("train", "val")]
    frames = [frame for part in parts for frame in _frames(folder, part, fetched)]
    if split in ("train", "val"):
        frames = [frame for frame in frames if is_val(frame.sequence) == (split == "val")]
    frames = [frames[i] for i in spread(len(frames), limit)]
    records = list(_fetched(folder, frames) if fetched else _simplified(folder, frames, "background" in options))
    # Masked pictures are functions: the fingerprint learns of their files in this way.
    sources = [frames[i].picture for i in spread(len(frames), _SAMPLED)]
    info = HUMAN36M.info(root, landmark_names=LANDMARK_NAMES, flip_pairs=FLIP_PAIRS, skeleton=SKELETON)
    return RealDataset(info, records, split, size, limit, sources)


def check(root: str) -> list[Problem]:
    """Compare the folder with the official data: the frames are counted, their landmarks are not read."""
    folder, _ = _folder(root)
    fetched = _is_fetched(folder)
    found = {part: sum(1 for _ in _frames(folder, part, fetched)) for part in SUBJECTS}
    counts = FETCHED_COUNTS if fetched else COUNTS
    return compare(found, counts, HUMAN36M.title, "frames in the official part ")


def _folder(root: str) -> tuple[Path, tuple[str, ...]]:
    folder, options = folder_and_options(root, ("background",))
    inside = folder / "human_images"
    folder = inside if inside.is_dir() else folder
    subjects = (*SUBJECTS["train"], *SUBJECTS["test"])
    HUMAN36M.need(folder, subjects)
    if not _is_fetched(folder):
        HUMAN36M.need(folder, [f"{s}/{kind}" for s in subjects for kind in (_PICTURES, _MASKS, _LANDMARKS)])
    return folder, options


def _is_fetched(folder: Path) -> bool:
    return find(folder, "S1/*/imageSequence") is not None


def _action(name: str) -> str:
    """``Walking 1.54138969`` and ``Walking-1`` are of the action Walking."""
    return re.split(r"[ .\-_]", name, maxsplit=1)[0]


def _subfolders(folder: Path) -> list[str]:
    return sorted(name for name in os.listdir(folder) if _action(name) in ACTIONS and (folder / name).is_dir())


def _frames(folder: Path, part: str, fetched: bool) -> Iterator[_Frame]:
    for subject in SUBJECTS[part]:
        top = folder / subject if fetched else folder / subject / _PICTURES
        for action in _subfolders(top):
            if not fetched:
                yield from _numbered(subject, action, top / action)
                continue
            cameras = top / action / "imageSequence"
            for camera in sorted(os.listdir(cameras)) if cameras.is_dir() else []:
                yield from _numbered(subject, f"{action}/{camera}", cameras / camera)


def _numbered(subject: str, folder: str, place: Path) -> Iterator[_Frame]:
    """The frames of one camera, by their numbers."""
    found = [(int(match[1]), name) for name in os.listdir(place) if (match := _NUMBER.search(name))]
    for number, name in sorted(found):
        yield _Frame(subject, folder, number, place / name)


def _grouped(frames: list[_Frame]) -> Iterator[list[_Frame]]:
    """Neighbours of the same camera and take."""
    start = 0
    for i in range(1, len(frames) + 1):
        if i == len(frames) or frames[i].picture.parent != frames[start].picture.parent:
            yield frames[start:i]
            start = i


# --- simplified -----------------------------------------------------------------------------------------------------


def _simplified(folder: Path, frames: list[_Frame], background: bool) -> Iterator[Record]:
    for group in _grouped(frames):
        first = group[0]
        place = folder / first.subject
        points = _points(place / _LANDMARKS / first.folder, [frame.picture.stem for frame in group])
        # The edges of the picture are at 0 and 1; all pictures of a folder have one size.
        side = np.array(image_size(first.picture)[::-1], np.float64)
        masks = place / _MASKS / first.folder
        lost = {f"{frame.picture.stem}.png" for frame in group} - set(os.listdir(masks) if masks.is_dir() else ())
        if lost:
            raise InputError(
                f"{masks}: found no {min(lost)} ({len(lost)} masks are missing), expected one a picture; unpack the "
                f"masks again, or get them at {HUMAN36M.where}"
            )
        for frame, joints in zip(group, points, strict=True):
            mask = masks / f"{frame.picture.stem}.png"
            yield _record(
                frame,
                image=frame.picture if background else partial(_masked, frame.picture, mask),
                landmarks=joints[:, ::-1] * side,
                crop=Centre(1.0),
                mask=partial(_mask, mask),
            )


def _record(frame: _Frame, **rest: object) -> Record:
    return Record(
        name=f"{frame.subject}/{frame.folder}/{frame.picture.name}",
        subject=frame.subject,
        video=f"{frame.subject}/{frame.folder}",
        frame=frame.number,
        extra={"action": _action(frame.folder).lower()},
        **rest,
    )


def _mask(path: Path) -> np.ndarray:
    """The person; the pixels are 0 and 1, or 0 and 255."""
    values = read_image(path)[..., 0]
    return values > values.max() // 2


def _masked(picture: Path, mask: Path) -> np.ndarray:
    image = read_image(picture)
    person = _mask(mask)
    if person.shape != image.shape[:2]:
        person = resize(np.repeat(person[..., None].astype(np.uint8) * 255, 3, 2), image.shape[:2])[..., 0] >= 128
    return image * person[..., None]


def _points(folder: Path, stems: list[str]) -> np.ndarray:
    """Joints (N, 32, 2) of some frames of a folder, (row, column) in [0, 1]; of whole folders they are remembered."""
    from ulm.datasets.cache import cache_folder

    listed = sorted(os.listdir(folder)) if folder.is_dir() else []
    lost = sorted({f"{stem}.mat" for stem in stems} - set(listed))
    if lost:
        raise InputError(
            f"{folder}: found no {lost[0]} ({len(lost)} landmark files are missing), expected one a picture; unpack "
            f"the landmarks again, or get them at {HUMAN36M.where}"
        )
    if 2 * len(stems) < len(listed):
        return np.stack([_landmarks(folder / f"{stem}.mat") for stem in stems])
    key = hashlib.sha256(repr((str(folder.resolve()), folder.stat().st_mtime_ns, stems)).encode()).hexdigest()[:24]
    memory = cache_folder() / "human36m" / f"{key}.npy"
    if memory.is_file() and (known := _remembered(memory)).shape == (len(stems), 32, 2):
        return known
    points = np.stack([_landmarks(folder / f"{stem}.mat") for stem in stems])
    _remember(memory, points)
    return points


def _landmarks(path: Path) -> np.ndarray:
    points = np.asarray(read_matlab(path, "keypoints_2d")["keypoints_2d"])
    if points.shape != (32, 2) or points.dtype.kind not in "iuf":
        raise InputError(f"{path}: found keypoints_2d of shape {points.shape}, expected 32 x 2; take the original file")
    return points.astype(np.float64)


def _remembered(path: Path) -> np.ndarray:
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return np.zeros(0)  # A damaged cache is made again.


def _remember(path: Path, points: np.ndarray) -> None:
    from ulm.runs import atomic_write

    buffer = io.BytesIO()
    np.save(buffer, points, allow_pickle=False)
    try:
        atomic_write(path, buffer.getvalue())
    except OSError:
        return  # A cache that cannot be written costs time, nothing else.


# --- h36m-fetch -----------------------------------------------------------------------------------------------------


def _fetched(folder: Path, frames: list[_Frame]) -> Iterator[Record]:
    for group in _grouped(frames):
        action, camera = group[0].folder.split("/")
        path = folder / group[0].subject / action / "annot.h5"
        poses = _poses(path, camera)
        for frame in group:
            if frame.number not in poses:
                raise InputError(
                    f"{path}: found no pose of camera {camera}, frame {frame.number}; run process_all of h36m-fetch "
                    "again"
                )
            joints = poses[frame.number]
            corners = (*joints.min(axis=0), *joints.max(axis=0))
            yield _record(frame, image=frame.picture, landmarks=joints, crop=RoundPose(*map(float, corners)))


def _poses(path: Path, camera: str) -> dict[int, np.ndarray]:
    """Frame number to joints (32, 2), (x, y) in pixels."""
    import h5py

    if not path.is_file():
        raise InputError(
            f"found no file {path}, expected the poses that process_all of h36m-fetch writes; run it again"
        )
    try:
        with h5py.File(path, "r") as file:
            chosen = file["camera"][()].astype(np.int64) == int(camera)
            numbers, poses = file["frame"][()][chosen], file["pose/2d"][()][chosen].astype(np.float64)
    except (OSError, KeyError, ValueError, TypeError, IndexError, RuntimeError) as error:
        raise InputError(f"{path}: found no readable poses ({error}); run process_all of h36m-fetch again") from None
    if poses.shape != (len(numbers), 32, 2):
        raise InputError(f"{path}: found poses of shape {poses.shape}, expected N x 32 x 2; run process_all again")
    return {int(number): pose for number, pose in zip(numbers, poses, strict=True)}
