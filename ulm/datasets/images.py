"""Reading image files of every common kind as 8-bit RGB, and cutting squares out of them."""

from __future__ import annotations

import struct
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from ulm.errors import InputError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
# What Pillow's decoders raise on damaged files, apart from the bomb check.
_DECODE_ERRORS = (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError, struct.error)


@dataclass(frozen=True)
class Square:
    """A square of an image, in whole pixels of it; it may reach over the image's edges.

    Attributes:
        x0: Left edge.
        y0: Upper edge.
        side: Side length.
    """

    x0: int
    y0: int
    side: int

    def to_square(self, points: np.ndarray, size: int) -> np.ndarray:
        """Map ``(..., 2)`` points from the image to the square drawn at ``size`` x ``size`` pixels."""
        return (np.asarray(points, np.float64) - (self.x0, self.y0)) * (size / self.side)

    def to_image(self, points: np.ndarray, size: int) -> np.ndarray:
        """Undo :meth:`to_square`."""
        return np.asarray(points, np.float64) * (self.side / size) + (self.x0, self.y0)


def whole(width: int, height: int) -> Square:
    """The smallest square that holds the whole image, the image in its middle."""
    side = max(width, height)
    return Square(-((side - width) // 2), -((side - height) // 2), side)


def around(box: np.ndarray, width: int, height: int, margin: float = 1.25) -> Square:
    """A square round ``box`` (x0, y0, x1, y1).

    Its side is ``margin`` times the longer side of the box, at least 2 pixels and at most the longer side of the
    image; it has the centre of the box.
    """
    x0, y0, x1, y1 = (float(v) for v in box)
    side = max(2, round(min(margin * max(x1 - x0, y1 - y0), max(width, height))))
    return Square(round((x0 + x1 - side) / 2), round((y0 + y1 - side) / 2), side)


def cut(image: np.ndarray, square: Square, size: int) -> np.ndarray:
    """Cut ``square`` out of an image and resize it.

    Where the square reaches over the image's edge, the edge pixels are repeated. Shrinking is antialiased (Lanczos).

    Args:
        image: uint8 ``(H, W, 3)``.
        square: What to cut.
        size: Side of the result in pixels.

    Returns:
        uint8 ``(size, size, 3)``.
    """
    height, width = image.shape[:2]
    columns = np.clip(np.arange(square.x0, square.x0 + square.side), 0, width - 1)
    rows = np.clip(np.arange(square.y0, square.y0 + square.side), 0, height - 1)
    if square != Square(0, 0, width) or height != width:
        image = image[rows[:, None], columns[None]]
    return resize(image, (size, size))


def resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize uint8 ``(H, W, 3)`` to ``size`` = (height, width), antialiased (Lanczos)."""
    if image.shape[:2] == tuple(size):
        return image
    return np.asarray(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.LANCZOS))


def read_image(path: str | Path, size: int | tuple[int, int] | None = None) -> np.ndarray:
    """Read an image file as 8-bit RGB.

    Grey, palette, CMYK, YCbCr and 16-bit images are converted: 16-bit values are scaled, not cut off, and
    transparent pixels are laid over white. The EXIF orientation is applied, so the result is as viewers show it.

    Args:
        path: The file.
        size: Where given, the whole image is resized to ``(height, width)``, or to a square of that side.

    Returns:
        uint8 ``(H, W, 3)``.

    Raises:
        InputError: The file is missing, no image, cut short, or of a kind that cannot be converted.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"found no image file {path}; check the path")
    try:
        with warnings.catch_warnings():
            # Large photographs and odd EXIF blocks are fine here; Pillow's error for real bombs stays.
            warnings.simplefilter("ignore")
            with Image.open(path) as opened:
                opened.load()
                image = _to_rgb(ImageOps.exif_transpose(opened))
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except Image.DecompressionBombError:
        raise InputError(f"{path}: found an image of too many pixels; make it smaller, or leave it out") from None
    except _DECODE_ERRORS as error:
        raise InputError(
            f"{path}: found a damaged file or no image ({_one_line(error)}), expected a whole "
            f"{', '.join(s[1:] for s in SUFFIXES)} file; copy it again, or leave it out"
        ) from None
    if size is None:
        return image
    return resize(image, (size, size) if isinstance(size, int) else size)


def image_size(path: str | Path) -> tuple[int, int]:
    """(height, width) as :func:`read_image` returns it, from the file's header alone; raises InputError."""
    try:
        with Image.open(path) as opened:
            width, height = opened.size
            turned = opened.getexif().get(0x0112, 1) in (5, 6, 7, 8)
    except (*_DECODE_ERRORS, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: found a damaged file or no image ({_one_line(error)}); copy it again") from None
    return (width, height) if turned else (height, width)


def find_images(path: str | Path) -> list[Path]:
    """The image files in a folder and its sub-folders, sorted; hidden files are left out.

    Raises:
        InputError: ``path`` does not exist or holds no images.
    """
    path = Path(path)
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise InputError(f"found no folder {path}; check the path")
    files = [p for p in sorted(path.rglob("*")) if not any(s.startswith(".") for s in p.relative_to(path).parts)]
    images = [p for p in files if p.suffix.lower() in SUFFIXES and p.is_file()]
    if not images:
        others = sum(p.is_file() for p in files)
        raise InputError(
            f"found no images in {path} ({others} other files), expected {', '.join(s[1:] for s in SUFFIXES)}; "
            "convert other formats to one of these"
        )
    return images


def _to_rgb(image: Image.Image) -> np.ndarray:
    mode = image.mode
    if mode == "F" or mode.startswith("I"):
        grey = _to_eight_bits(np.asarray(image), mode)
        return np.repeat(grey[..., None], 3, axis=2)
    if mode == "RGBa" or mode == "La":
        image = image.convert("RGBA" if mode == "RGBa" else "LA")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.array(image.convert("RGB"))


def _to_eight_bits(values: np.ndarray, mode: str) -> np.ndarray:
    """Scale grey values: 16 bits by 257, floating point from [0, 1]."""
    values = values.astype(np.float64)
    top = 1.0 if mode == "F" else 65535.0
    if not np.isfinite(values).all() or values.min() < 0 or values.max() > top:
        raise InputError(
            f"found grey values from {values.min():g} to {values.max():g}, expected 0 to {top:g}; save it with 8 bits"
        )
    return np.round(values * (255.0 / top)).astype(np.uint8)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
