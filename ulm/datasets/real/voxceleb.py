"""VoxCeleb1: frames of faces that speak, in tracks; no landmarks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ulm.datasets.base import Dataset, check_split
from ulm.datasets.real import base
from ulm.datasets.real.base import Centre, Problem, RealDataset, Record
from ulm.datasets.real.catalogue_faces import VOXCELEB

COUNTS = {"speakers of train and val": 1_211, "speakers of test": 40}
TEST_IDS = range(10_270, 10_310)
"""Speakers of the verification test: id10270 to id10309, those whose names begin with E."""
EXCLUDED = "exclude.txt"

_WRAPPERS = ("unzippedIntervalFaces/data", "unzippedIntervalFaces", "unzippedFaces", "data", "")
_NO_LANDMARKS = np.zeros((0, 2))


def voxceleb(root: str, split: str, size: int, limit: int | None) -> Dataset:
    """Frames of face tracks; two frames of one ``video`` are a training pair (Jakab et al. 2018).

    The frames lie in ``SPEAKER/VIDEO/UTTERANCE/*.jpg``, or as VGG's archives unpack, ``unzippedFaces/NAME/1.6/VIDEO/``
    (one a second) and ``unzippedIntervalFaces/data/NAME/1.6/VIDEO/UTTERANCE/`` (denser). An item's ``video`` is its
    track, speaker, video and utterance; ``frame`` is the number in the file's name. The whole frame is used.

    ``test`` is the 40 speakers of the verification test: those marked so in ``vox1_meta.csv`` where that file is in the
    folder, else those with the ids 10270 to 10309 or a name that begins with E. 5 % of the other speakers are ``val``
    by a hash of the name. IMM removes speakers who appear in the test sets of MAFL and AFLW and gives no list: write
    their folder names into ``exclude.txt`` in the folder, one a line, and they are left out of train and val.

    Args:
        root: The folder.
        split: train, val, test or all.
        size: Side of the images in pixels.
        limit: Most items to keep, evenly spread.

    Returns:
        Images without landmarks, with ``video``, ``frame`` and ``subject``.

    Raises:
        InputError: No frames are found.
    """
    check_split(split)
    folder, speakers = _speakers(root)
    chosen = [name for name, part in speakers.items() if part and split in ("all", part)]
    frames = [(name, *frame) for name in chosen for frame in _frames(folder / name)]
    # Chosen before the records are made: there are millions of frames.
    frames = [frames[i] for i in base.spread(len(frames), limit)]
    records = [_record(folder, *frame) for frame in frames]
    return RealDataset(VOXCELEB.info(root), records, split, size)


def check(root: str) -> list[Problem]:
    """Compare the numbers of speakers with the official ones."""
    parts = list(_speakers(root)[1].values())
    found = dict(zip(COUNTS, (parts.count("train") + parts.count("val"), parts.count("test")), strict=True))
    return base.compare(found, COUNTS, "VoxCeleb1")


def _speakers(root: str) -> tuple[Path, dict[str, str]]:
    """The folder of the speakers' folders, and the split of each; an excluded one has none."""
    VOXCELEB.need(root)
    folder = next(Path(root, name) for name in _WRAPPERS if Path(root, name).is_dir())
    tests = _official_tests(root)
    path = Path(root, EXCLUDED)
    excluded = set(base.read_lines(path)) if path.is_file() else set()
    names = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))
    return folder, {name: _part(name, tests, excluded) for name in names}


def _part(name: str, tests: set[str] | None, excluded: set[str]) -> str:
    number = name.removeprefix("id")
    by_rule = int(number) in TEST_IDS if number.isdecimal() else name.startswith("E")
    if name in tests if tests is not None else by_rule:
        return "test"
    if name in excluded:
        return ""
    return "val" if base.is_val(name) else "train"


def _official_tests(root: str) -> set[str] | None:
    """Ids and names of the test speakers in ``vox1_meta.csv``: id, name, gender, nationality, dev or test."""
    path = base.find(root, "vox1_meta.csv or */vox1_meta.csv")
    if path is None:
        return None
    rows = [line.replace(",", "\t").split("\t") for line in base.read_lines(path)]
    return {word.strip() for row in rows if row[-1].strip() == "test" for word in row[:2]}


def _frames(speaker: Path) -> Iterator[tuple[str, str]]:
    """(track, file name) of each frame of a speaker, in order; the track is a path below the speaker."""
    for parent, folders, files in os.walk(speaker):
        folders.sort()
        track = os.path.relpath(parent, speaker).replace(os.sep, "/")
        for name in sorted(files):
            if name.lower().endswith((".jpg", ".jpeg", ".png")) and not name.startswith("."):
                yield track, name


def _record(folder: Path, speaker: str, track: str, name: str) -> Record:
    place = f"{speaker}/{track}/{name}"
    digits = "".join(c for c in os.path.splitext(name)[0] if c.isdecimal())
    return Record(
        image=os.path.join(folder, place),
        name=place,
        landmarks=_NO_LANDMARKS,
        crop=Centre(1.0),
        video=f"{speaker}/{track.removeprefix('1.6/')}",
        frame=int(digits or 0),
        subject=speaker,
    )
