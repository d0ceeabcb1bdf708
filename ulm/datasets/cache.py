"""Data sets drawn or decoded once, then read from memory-mapped arrays."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import shutil
import socket
import sys
import threading
import time
import uuid
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ulm.datasets.base import Dataset, Sample, check_index
from ulm.datasets.hashing import digest
from ulm.errors import InputError

_CHUNK = 32
_VERSION = 1


def cache_folder() -> Path:
    """The folder for what can be made again: ``$ULM_CACHE``, else the user's cache folder."""
    import platformdirs

    return Path(os.environ.get("ULM_CACHE") or platformdirs.user_cache_dir("ulm", appauthor=False))


class CachedDataset(Dataset):
    """The same items as ``dataset``, from memory-mapped arrays; images are rounded to 8 bits.

    Attributes:
        arrays: uint8 ``image`` ``(N, 3, H, W)`` and every other tensor of the items, one array each, on disk.
    """

    def __init__(self, dataset: Dataset, folder: Path):
        self.info, self.split, self.size = dataset.info, dataset.split, dataset.size
        self.folder, self._fingerprint, self._length = folder, dataset.fingerprint, len(dataset)
        index = json.loads((folder / "index.json").read_text())
        # Copy on write: PyTorch wants writable memory, and the file stays as it is.
        self.arrays = {key: np.load(folder / f"{key}.npy", mmap_mode="c") for key in index["arrays"]}
        self._lists: dict[str, list[Any]] = json.loads((folder / "lists.json").read_text())
        self._videos: dict[int, list[int]] | None = None

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Sample:
        index = check_index(index, len(self))
        item = {key: torch.from_numpy(np.array(values[index])) for key, values in self.arrays.items()}
        item["image"] = item["image"].float() / 255
        return item | {key: values[index] for key, values in self._lists.items()}

    def batch(self, indices: Sequence[int]) -> Sample:
        """Stack items, straight from the arrays."""
        places = self._places(indices)
        batch: Sample = {key: torch.from_numpy(values[places]) for key, values in self.arrays.items()}
        batch["image"] = batch["image"].float() / 255
        return batch | {key: [values[i] for i in places] for key, values in self._lists.items()}

    def images_uint8(self, indices: Sequence[int] | Tensor) -> Tensor:
        """uint8 ``(B, 3, H, W)``, for the device to scale."""
        return torch.from_numpy(self.arrays["image"][self._places(indices)])

    @property
    def images(self) -> Tensor:
        """All images, uint8 ``(N, 3, H, W)``, memory-mapped."""
        return torch.from_numpy(self.arrays["image"])

    @property
    def landmarks(self) -> Tensor:
        """All landmarks, float32 ``(N, L, 2)``."""
        return torch.from_numpy(np.array(self.arrays["landmarks"]))

    @property
    def visible(self) -> Tensor:
        """All visibilities, bool ``(N, L)``."""
        return torch.from_numpy(np.array(self.arrays["visible"]))

    def partners(self, indices: Sequence[int] | Tensor, generator: torch.Generator) -> Tensor:
        """For each frame another frame of the same video, drawn evenly (Jakab et al. 2018, section 3).

        The only frame of a video is its own partner.

        Args:
            indices: B places in this data set.
            generator: A generator on the CPU.

        Returns:
            int64 ``(B,)``.

        Raises:
            InputError: The items have no ``video``.
        """
        if self._videos is None:
            videos = self._lists.get("video") or []
            if all(video is None for video in videos):
                raise InputError(
                    f"{self.info.name} has no videos; give 'video' for its images, or train without video pairs"
                )
            frames: dict[Any, list[int]] = {}
            for place, video in enumerate(videos):
                frames.setdefault(place if video is None else str(video), []).append(place)
            self._videos = {place: members for members in frames.values() for place in members}
        places = [int(i) for i in self._places(indices)]
        draws = torch.rand(len(places), generator=generator, dtype=torch.float64).tolist()
        return torch.tensor([_other(self._videos[p], p, draw) for p, draw in zip(places, draws, strict=True)])

    def column(self, key: str) -> list[Any] | Tensor | None:
        """All values of one key of the items (``video``, ``frame``, ``yaw``, ...); None where it is not known."""
        if key in self.arrays:
            return torch.from_numpy(np.array(self.arrays[key]))
        return self._lists.get(key)

    @property
    def fingerprint(self) -> str:
        """That of the data set behind."""
        return self._fingerprint

    def _places(self, indices: Sequence[int] | Tensor) -> np.ndarray:
        return np.array([check_index(int(i), len(self)) for i in indices], dtype=np.int64)


def _other(members: list[int], place: int, draw: float) -> int:
    others = [member for member in members if member != place]
    return others[int(draw * len(others))] if others else place


def cached(
    dataset: Dataset, folder: str | Path | None = None, workers: int = 2, progress: bool = True
) -> CachedDataset:
    """Draw or decode every item of a data set once, in parallel processes.

    The arrays are made in a temporary folder and renamed when whole, so a kill leaves nothing half-written in use, and
    two processes may make the same cache at once. A damaged cache is made again.

    Args:
        dataset: Any data set.
        folder: Where caches lie; :func:`cache_folder` by default.
        workers: Parallel processes (Linux); 0 or 1 works in this one.
        progress: Show a bar with the time left, on standard error.

    Raises:
        InputError: An item cannot be read; the message names the file.
    """
    if isinstance(dataset, CachedDataset):
        return dataset
    root = Path(folder) if folder else cache_folder() / "datasets"
    place = (
        root / f"{digest(_VERSION, dataset.info.name.split(':')[0], dataset.fingerprint)}-{dataset.size}-{len(dataset)}"
    )
    if not _is_whole(place):
        _make(dataset, place, workers, progress)
    return CachedDataset(dataset, place)


def _is_whole(place: Path) -> bool:
    """Whether the cache is finished, and every file is as long as it was written."""
    try:
        index = json.loads((place / "index.json").read_text())
        return all((place / name).stat().st_size == size for name, size in index["bytes"].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _make(dataset: Dataset, place: Path, workers: int, progress: bool) -> None:
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        _sweep(place)
        temporary = place.with_name(f"{place.name}.{socket.gethostname()}.{os.getpid()}.{uuid.uuid4().hex[:8]}.tmp")
        temporary.mkdir()
    except OSError as error:
        raise InputError(f"found no room for a cache at {place.parent} ({error}); set ULM_CACHE to a folder") from None
    try:
        _fill(dataset, temporary, workers, progress)
        _move(temporary, place)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _sweep(place: Path) -> None:
    """Remove what killed processes of this machine left behind."""
    for old in place.parent.glob(f"{place.name}.{socket.gethostname()}.*.*.*"):
        process = old.name.split(".")[-3]
        if not process.isdigit() or not _is_alive(int(process)):
            shutil.rmtree(old, ignore_errors=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _move(temporary: Path, place: Path) -> None:
    for _ in range(3):
        if _is_whole(place):  # Another process was faster.
            return
        try:
            if place.exists():
                shutil.rmtree(place.rename(temporary.with_suffix(".damaged")), ignore_errors=True)
            temporary.rename(place)
            return
        except OSError:
            continue
    raise InputError(f"found a cache at {place} that cannot be replaced; remove that folder")


def _fill(dataset: Dataset, folder: Path, workers: int, progress: bool) -> None:
    first = dataset[0]
    tensors = {k: v for k, v in first.items() if isinstance(v, Tensor)}
    for key, value in tensors.items():
        dtype = np.dtype(np.uint8) if key == "image" else value.numpy().dtype
        shape = (len(dataset), *value.shape)
        if 0 in shape:
            np.save(folder / f"{key}.npy", np.zeros(shape, dtype), allow_pickle=False)
        else:
            np.lib.format.open_memmap(folder / f"{key}.npy", mode="w+", dtype=dtype, shape=shape).flush()
    lists: dict[str, list[Any]] = {k: [None] * len(dataset) for k in first if k not in tensors}
    have = _take_over(dataset, folder, tensors, lists)
    chunks = [range(i, min(i + _CHUNK, len(dataset))) for i in range(have, len(dataset), _CHUNK)]
    for chunk, values in _run(dataset, folder, chunks, workers, progress):
        for key, column in values.items():
            lists[key][chunk.start : chunk.stop] = column
    (folder / "lists.json").write_text(json.dumps(lists))
    names = [*(f"{key}.npy" for key in tensors), "lists.json"]
    sizes = {name: (folder / name).stat().st_size for name in names}
    index = {"arrays": list(tensors), "bytes": sizes, "lineage": dataset.lineage, "length": len(dataset)}
    (folder / "index.json").write_text(json.dumps(index))


def _take_over(dataset: Dataset, folder: Path, tensors: dict[str, Tensor], lists: dict[str, list[Any]]) -> int:
    """Copy what a shorter or longer cache of the same lineage holds already; how many items that is."""
    if dataset.lineage is None:
        return 0
    most, donor = 0, folder
    for other in folder.parent.iterdir():
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            index = json.loads((other / "index.json").read_text())
            if index["lineage"] == dataset.lineage and index["length"] > most and _is_whole(other):
                most, donor = index["length"], other
    have = min(most, len(dataset))
    if have:
        for key in (key for key, value in tensors.items() if value.numel()):
            theirs = np.load(donor / f"{key}.npy", mmap_mode="r")
            np.load(folder / f"{key}.npy", mmap_mode="r+")[:have] = theirs[:have]
        known = json.loads((donor / "lists.json").read_text())
        for key, column in lists.items():
            column[:have] = known[key][:have]
    return have


def _run(
    dataset: Dataset, folder: Path, chunks: list[range], workers: int, progress: bool
) -> Iterator[tuple[range, dict[str, list[Any]]]]:
    from tqdm.auto import tqdm

    what = f"reading {dataset.info.name} at {dataset.size} px"
    with tqdm(total=sum(map(len, chunks)), desc=what, unit="image", disable=not progress, file=sys.stderr) as bar:
        for chunk, values in _chunks_done(dataset, folder, chunks, workers):
            bar.update(len(chunk))
            yield chunk, values


def _chunks_done(
    dataset: Dataset, folder: Path, chunks: list[range], workers: int
) -> Iterator[tuple[range, dict[str, list[Any]]]]:
    # Forked workers inherit the data set and need no importable main module; elsewhere than Linux forking is unsafe.
    if workers < 2 or len(chunks) < 2 or not sys.platform.startswith("linux") or _is_worker():
        for chunk in chunks:
            yield chunk, _write_chunk(dataset, folder, chunk)
        return
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(min(workers, len(chunks)), context, _start_worker, (os.getpid(),)) as pool:
        with warnings.catch_warnings():
            # Python 3.12 warns of forking beside threads; the workers use one thread each, as PyTorch's own do.
            warnings.simplefilter("ignore", DeprecationWarning)
            futures: dict[Future, range] = {pool.submit(_write_chunk, dataset, folder, c): c for c in chunks}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BrokenProcessPool:
            raise InputError(
                "found a worker process killed, likely for memory; use a smaller size, or workers=0"
            ) from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _start_worker(parent: int) -> None:
    torch.set_num_threads(1)

    def watch() -> None:
        # A worker whose parent was killed would wait for work for ever.
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _is_worker() -> bool:
    """Daemonic processes may not have children."""
    return bool(multiprocessing.current_process().daemon)


def _write_chunk(dataset: Dataset, folder: Path, chunk: range) -> dict[str, list[Any]]:
    batch = dataset.batch(chunk)
    lists = {}
    for key, values in batch.items():
        if not isinstance(values, Tensor):
            lists[key] = [v.item() if isinstance(v, np.generic) else v for v in values]
            continue
        if key == "image":
            values = (values.clamp(0, 1) * 255).round().to(torch.uint8)
        if values.numel():
            np.load(folder / f"{key}.npy", mmap_mode="r+")[chunk.start : chunk.stop] = values.numpy()
    return lists
