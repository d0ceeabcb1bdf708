"""Profiles, seeds, devices, files that are never half-written, and the provenance of every number."""

from __future__ import annotations

import json
import os
import platform
import random
import subprocess
import tempfile
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ulm.errors import InputError

# What lets IMM learn from thousands of images instead of millions; the chapter 'IMM, step by step' says why.
_SHORT_ROAD: dict[str, Any] = {
    "equivariance": 100.0,
    "concentration": 5.0,
    "separation": 10.0,
    "reconstruct_every": 4,
    "softmax": "joint",
    "gain": 5.0,
    "initialisation": "kaiming",
    "schedule": "cosine",
    "learning_rate": 6e-3,
}

# Sizes that the stages of D-ULD must agree on.
_DULD_SMOKE: dict[str, Any] = {
    "image_size": 32,
    "projection_dim": 8,
    "descriptor_dim": 8,
    "width": 8,
    "code": 8,
    "vae_width": 4,
    "region_images": 8,
    "recluster_every": 2,
    "negatives": 10,
    "fine": 12,
    "n_poses": 2,
    "pose_least": 2,
    "pose_groups": 2,
    "batch_size": 4,
    "steps": 4,
    "precision": "float32",
}
# On the pocket's 16 x 16 latents: the finest taps alone, as the others tell where in the picture a cell lies; a grid of
# twice as many cells, on which the ten landmarks of a face do not touch; no suppression, which at this size leaves
# five keypoints of a face; a rate for a thousand steps instead of a hundred thousand.
_DULD_LAPTOP: dict[str, Any] = {
    "image_size": 64,
    "layers": [9, 10, 11],
    "grid": 32,
    "radius": 0.0,
    "learning_rate": 2e-3,
    "projection_dim": 64,
    "descriptor_dim": 64,
    "width": 64,
    "vae_width": 16,
    "recluster_every": 250,
    "cluster_images": 1000,
    "batch_size": 8,
    "micro_batch": 8,
}
_DULD_PAPER: dict[str, Any] = {
    "image_size": 512,
    "backbone": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "recluster_every": 5000,
    # A round on all of CelebA would look at 162,000 images.
    "cluster_images": 20_000,
    "negatives": 1000,
    "batch_size": 12,
}

# The one place that says what each profile sets. `data` is the number of training images drawn, `fit` the images that
# regressors may use, `pool` those of the tables that ask how many are enough, `test` the images that errors are
# measured on, None: all; `diffusion` sets them for the chapters whose predictions cost many passes of a U-Net, how
# many views of an image are averaged, and how many images are in the U-Net together; then each method's
# hyperparameters.
PROFILES: dict[str, dict[str, Any]] = {
    "smoke": {
        "size": 32,
        "data": 96,
        "fit": 64,
        "pool": 64,
        "test": 48,
        "labels": 32,
        "repeats": 2,
        "diffusion": {"size": 32, "data": 48, "fit": 32, "test": 16, "labels": 24, "views": 0, "micro_batch": 4},
        "imm": {**_SHORT_ROAD, "image_size": 32, "width": 8, "batch_size": 8, "steps": 12, "precision": "float32"},
        "inter-intra": {
            "image_size": 32,
            "width": 16,
            "generator_width": 4,
            "schedule": "cosine",
            "batch_size": 8,
            "steps": 12,
            "precision": "float32",
        },
        "pose-core": {
            "image_size": 32,
            "width": 16,
            "subset": "mpii-16",
            "batch_size": 8,
            "steps": 12,
            "precision": "float32",
        },
        "colourisation": {"image_size": 32, "width": 4, "batch_size": 8, "steps": 6},
        "recognition": {"image_size": 32, "width": 4, "batch_size": 8, "steps": 6},
        "pocket": {
            "config": "tiny",
            "steps": 7,
            "text_steps": 1,
            "autoencoder_steps": 2,
            "half_steps": 1,
            "decoder_steps": 1,
            "batch_size": 4,
            "perceptual": "",
            "precision": "float32",
        },
        "stable-keypoints": {
            "image_size": 32,
            "n_tokens": 24,
            "kappa": 12,
            "map_size": 16,
            "sigma": 1.0,
            "views": 2,
            "selection_images": 8,
            "batch_size": 2,
            "micro_batch": 2,
            "steps": 4,
            "precision": "float32",
        },
        "zero-shot": {
            "image_size": 32,
            "region_images": 8,
            "images": 16,
            "samples": 30,
            "batch_size": 8,
            "precision": "float32",
        },
        "d-uld-bootstrap": _DULD_SMOKE,
        "d-uld": _DULD_SMOKE,
        "mallis-d": _DULD_SMOKE,
        "d-uld-pp": _DULD_SMOKE,
        "d-uld++": _DULD_SMOKE,
    },
    "laptop": {
        "size": 64,
        "data": 4000,
        "fit": 500,
        "pool": 5000,
        "test": 500,
        "labels": 300,
        "repeats": 10,
        "diffusion": {"size": 64, "data": 2000, "fit": 100, "test": 100, "labels": 100, "views": 2, "micro_batch": 16},
        "imm": {**_SHORT_ROAD, "image_size": 64, "width": 16, "batch_size": 16, "steps": 8000},
        "inter-intra": {
            "image_size": 64,
            "width": 64,
            "generator_width": 16,
            # What lets it learn from thousands of images, as for IMM; the paper has neither.
            "equivariance": 100.0,
            "separation": 10.0,
            "learning_rate": 3e-3,
            "schedule": "cosine",
            "batch_size": 16,
            "steps": 1500,
        },
        "pose-core": {"image_size": 64, "width": 64, "subset": "mpii-16", "batch_size": 16, "steps": 2000},
        "colourisation": {"image_size": 64, "width": 16, "batch_size": 32, "steps": 1500},
        "recognition": {"image_size": 64, "width": 16, "batch_size": 32, "steps": 1500},
        "pocket": {
            "steps": 4_000,
            "text_steps": 300,
            "autoencoder_steps": 500,
            "decoder_steps": 200,
            "batch_size": 32,
            "autoencoder_rate": 3e-3,
            "perceptual": "",
        },
        # Settings other than sizes: see the chapter's table.
        "stable-keypoints": {
            "image_size": 128,
            "n_tokens": 100,
            "map_size": 64,
            "sigma": 4.0,
            "layers": [14],
            "losses_on": "local",
            "locality": "sum",
            "timestep": 200,
            "learning_rate": 1e-2,
            "batch_size": 4,
            "micro_batch": 4,
            "steps": 300,
        },
        "zero-shot": {"image_size": 64, "layers": [9, 10, 11], "images": 1000, "samples": 100, "centre": True},
        "d-uld-bootstrap": {**_DULD_LAPTOP, "steps": 400},
        "d-uld": {**_DULD_LAPTOP, "steps": 1500},
        "mallis-d": {**_DULD_LAPTOP, "steps": 1500},
        "d-uld-pp": {**_DULD_LAPTOP, "learning_rate": 1e-3, "steps": 400},
        "d-uld++": {**_DULD_LAPTOP, "learning_rate": 1e-3, "steps": 1000},
    },
    "paper": {
        "size": 128,
        "data": None,
        "fit": None,
        "pool": None,
        "test": None,
        "labels": None,
        "repeats": 10,
        "diffusion": {
            "size": 512,
            "data": None,
            "fit": None,
            "test": None,
            "labels": None,
            "views": 10,
            "micro_batch": 4,
        },
        "imm": {"image_size": 128, "width": 32, "batch_size": 50, "steps": 500_000, "convention": "release"},
        # The core is a folder of one's own: -p core FOLDER, as `ulm fit --method pose-core --data mpii:ROOT` writes it.
        "inter-intra": {
            "image_size": 128,
            "width": 256,
            "generator_width": 32,
            "perceptual": "timm/vgg16.tv_in1k",
            "vgg_input": "raw",
            "adaptation": "projection",
            "decays_to": "zero",
            "batch_size": 32,
            "steps": 82_500,
        },
        # The papers do not say how long their core was trained.
        "pose-core": {"image_size": 128, "width": 256, "batch_size": 32, "steps": 100_000},
        "colourisation": {"image_size": 128, "width": 64, "batch_size": 64, "steps": 200_000},
        "recognition": {"image_size": 128, "width": 64, "batch_size": 64, "steps": 200_000},
        # No paper has a pocket pipeline: sizes for a large GPU, where they have not been timed yet.
        "pocket": {
            "steps": 160_000,
            "text_steps": 1_000,
            "autoencoder_steps": 15_000,
            "decoder_steps": 5_000,
            "batch_size": 64,
        },
        # The paper does not say its batch; 10,000 steps in two hours of an RTX 3090 fit one image a step.
        "stable-keypoints": {
            "image_size": 512,
            "backbone": "stable-diffusion-v1-5/stable-diffusion-v1-5",
            "n_tokens": 500,
            "kappa": 25,
            "map_size": 128,
            "sigma": 2.0,
            "batch_size": 1,
            "steps": 10_000,
            "convention": "release",
        },
        # The paper clusters pixels of all training images; 1,000 images' descriptors of 6,720 numbers take 2.7 GB.
        "zero-shot": {
            "image_size": 512,
            "backbone": "stable-diffusion-v1-5/stable-diffusion-v1-5",
            "images": 1000,
            "samples": 100,
        },
        "d-uld-bootstrap": {**_DULD_PAPER, "steps": 50_000},
        "d-uld": {**_DULD_PAPER, "steps": 100_000},
        "mallis-d": {**_DULD_PAPER, "steps": 100_000},
        "d-uld-pp": {**_DULD_PAPER, "steps": 50_000},
        "d-uld++": {**_DULD_PAPER, "steps": 100_000},
    },
}


def profile(name: str) -> dict[str, Any]:
    """What the profile ``smoke``, ``laptop`` or ``paper`` sets.

    Raises:
        InputError: For another name.
    """
    if name not in PROFILES:
        raise InputError(f"found profile {name!r}, expected one of {', '.join(PROFILES)}")
    return PROFILES[name]


def pick_device(name: str = "auto") -> torch.device:
    """``auto`` is CUDA where there is one, else the CPU.

    Raises:
        InputError: If the name is unknown or asks for CUDA where there is none.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.split(":")[0] not in {"cpu", "cuda", "mps"}:
        raise InputError(f"found device {name!r}, expected auto, cpu, cuda, cuda:N or mps")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise InputError(f"found device={name} but no CUDA device; use device=auto or device=cpu")
    if name.startswith("cuda:") and int(name[5:]) >= torch.cuda.device_count():
        raise InputError(f"found device={name} but {torch.cuda.device_count()} CUDA device(s); count from cuda:0")
    if name == "mps" and not torch.backends.mps.is_available():
        raise InputError("found device=mps but no Metal device; use device=auto or device=cpu")
    return torch.device(name)


def autocast(device: torch.device, precision: str = "auto") -> torch.autocast:
    """bfloat16 for convolutions and products: asked for, or ``auto`` and the device is fast at it."""
    fast = device.type == "cuda" or (device.type == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported())
    wanted = precision == "bfloat16" or (precision == "auto" and fast)
    return torch.autocast(device.type, torch.bfloat16, enabled=wanted)


def seed_everything(seed: int) -> None:
    """Seed Python's, numpy's and torch's global generators. ``ulm`` itself draws from generators of its own."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 (the global generator, for code that uses it)
    torch.manual_seed(seed)


def generator(device: torch.device, *numbers: int) -> torch.Generator:
    """A generator that depends on the numbers alone, such as (seed, step): resuming needs no saved random state."""
    state = int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))
    return torch.Generator(device).manual_seed(state)


def atomic_write(path: Path | str, content: bytes | str) -> None:
    """Write a file whole or not at all: to a temporary name beside it, flushed to disk, then renamed."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


@cache
def commit() -> str:
    """The commit that ``ulm`` runs from, with ``+`` where tracked files differ from it; empty outside a checkout."""
    folder = Path(__file__).parent

    def git(*arguments: str) -> str:
        result = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=20)
        return result.stdout.strip() if result.returncode == 0 else ""

    try:
        head = git("rev-parse", "--short=10", "HEAD")
        return head + ("+" if head and git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.TimeoutExpired):
        return ""


def versions() -> dict[str, str]:
    """Versions of what decides a number: Python, ulm, torch, numpy, scikit-learn."""
    found = {"python": platform.python_version()}
    for package in ("ulm", "torch", "numpy", "scikit-learn"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def device_name(device: torch.device | str) -> str:
    """Words for a device, such as ``cpu (2 threads)`` or ``NVIDIA H200``."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} ({torch.get_num_threads()} threads)"


def provenance(device: torch.device | str = "cpu", **extra: Any) -> dict[str, Any]:
    """Where a number comes from: commit, versions, date and device, and whatever the caller knows besides
    (``dataset``, ``fingerprint``, ``n_fit``, ``n_test``, ``seeds``, ``profile``, ``seconds``)."""
    return {
        **extra,
        "device": device_name(device),
        "commit": commit(),
        "versions": versions(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }


def measurement(
    id: str, row: str, column: str, value: float | str, provenance: dict[str, Any], unit: str = "%", **extra: Any
) -> dict[str, Any]:
    """One measured cell of a table, or with ``picture=PATH`` in ``extra`` one picture."""
    number = round(float(value), 4) if not isinstance(value, str) else value
    return {"id": id, "row": row, "column": column, "value": number, "unit": unit, **extra, "provenance": provenance}


def record(measurements: Iterable[dict[str, Any]], path: Path | str) -> None:
    """Add measurements to a JSON list; one of the same id, row and column is replaced."""
    path = Path(path)
    known = json.loads(path.read_text()) if path.is_file() else []
    cells = {(m["id"], m["row"], m["column"]): m for m in [*known, *measurements]}
    atomic_write(path, json.dumps(list(cells.values()), indent=1) + "\n")


def numbers_folder() -> Path:
    """Where notebooks leave this build's numbers: ``$ULM_NUMBERS``, else ``_build/numbers``."""
    return Path(os.environ.get("ULM_NUMBERS", "_build/numbers"))


class Stopwatch:
    """Seconds since it was made, plus those of earlier runs that it continues."""

    def __init__(self, before: float = 0.0):
        self.before, self.start = before, time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds so far."""
        return self.before + time.perf_counter() - self.start
