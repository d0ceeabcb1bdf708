"""Numbers, strings, tables and tensors of torch7's ``.t7`` files (binary and ASCII); nothing in them is executed."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np

from ulm.errors import InputError

_NIL, _NUMBER, _STRING, _TABLE, _TORCH, _BOOLEAN = range(6)
_DTYPES = {
    "Byte": "u1",
    "Char": "i1",
    "Short": "<i2",
    "Int": "<i4",
    "Long": "<i8",
    "Float": "<f4",
    "Double": "<f8",
}
_DEEPEST = 50  # tables in tables


def read_torch7(path: str | Path) -> Any:
    """Read a file written by torch7's ``torch.save`` on a 64-bit machine.

    Args:
        path: The file, in torch7's binary or ASCII format.

    Returns:
        None, a float, bool, bytes, a dict (table), or an array (tensor or storage).

    Raises:
        InputError: It is no such file, is cut short, or holds functions or other classes, which are never run.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
        # A binary file begins with a type below 9 as four bytes, the low one first.
        reader = _Binary(data) if data[1:4] == b"\0\0\0" else _Ascii(data)
        return _Objects(reader).read()
    except OSError as error:
        raise InputError(f"found no readable file {path} ({error.strerror}); check the path") from None
    except (ValueError, IndexError, OverflowError, struct.error) as error:
        raise InputError(f"{path}: found no whole torch7 file ({error}); copy it again") from None


class _Binary:
    """Values of the binary format: little-endian, ``int`` of 4 and ``long`` of 8 bytes."""

    def __init__(self, data: bytes):
        self.data, self.place = data, 0

    def integer(self) -> int:
        return self._unpack("<i", 4)

    def longs(self, count: int) -> list[int]:
        return [self._unpack("<q", 8) for _ in range(count)]

    def number(self) -> float:
        return self._unpack("<d", 8)

    def text(self, length: int) -> bytes:
        if length < 0 or self.place + length > len(self.data):
            raise ValueError("it ends too early")
        self.place += length
        return self.data[self.place - length : self.place]

    def array(self, dtype: str, count: int) -> np.ndarray:
        return np.frombuffer(self.text(count * np.dtype(dtype).itemsize), dtype)

    def _unpack(self, kind: str, length: int) -> Any:
        return struct.unpack(kind, self.text(length))[0]


class _Ascii:
    """Values of the ASCII format: words between blanks, and strings after their length."""

    def __init__(self, data: bytes):
        self.data, self.place = data, 0

    def integer(self) -> int:
        return int(self._word())

    def longs(self, count: int) -> list[int]:
        return [int(self._word()) for _ in range(count)]

    def number(self) -> float:
        return float(self._word())

    def text(self, length: int) -> bytes:
        start = self.place + 1  # one line break
        if length < 0 or start + length > len(self.data):
            raise ValueError("it ends too early")
        self.place = start + length
        return self.data[start : self.place]

    def array(self, dtype: str, count: int) -> np.ndarray:
        if np.dtype(dtype).itemsize == 1:
            return np.frombuffer(self.text(count), dtype)
        if not 0 <= count <= len(self.data):
            raise ValueError(f"it says that {count} numbers follow")
        convert = float if "f" in dtype else int
        return np.array([convert(self._word()) for _ in range(count)], dtype)

    def _word(self) -> bytes:
        start = self.place
        while self.data[start : start + 1].isspace():
            start += 1
        end = start
        while end < len(self.data) and not self.data[end : end + 1].isspace():
            end += 1
        if start == end:
            raise ValueError("it ends too early")
        self.place = end
        return self.data[start:end]


class _Objects:
    """Objects made of the values; one that was read before is only referred to by its number."""

    def __init__(self, reader: _Binary | _Ascii):
        self.reader = reader
        self.seen: dict[int, Any] = {}

    def read(self, depth: int = 0) -> Any:
        kind = self.reader.integer()
        if kind == _NIL:
            return None
        if kind == _NUMBER:
            return self.reader.number()
        if kind == _STRING:
            return self.reader.text(self.reader.integer())
        if kind == _BOOLEAN:
            return self.reader.integer() == 1
        if kind not in (_TABLE, _TORCH) or depth > _DEEPEST:
            raise ValueError(f"an object of type {kind}, which is not read")
        number = self.reader.integer()
        if number not in self.seen:
            self.seen[number] = self._table(number, depth) if kind == _TABLE else self._torch(depth)
        return self.seen[number]

    def _table(self, number: int, depth: int) -> dict[Any, Any]:
        table: dict[Any, Any] = {}
        self.seen[number] = table
        for _ in range(self.reader.integer()):
            key = self.read(depth + 1)
            if isinstance(key, dict | np.ndarray):
                raise ValueError("a table whose key is no number or string")
            table[key] = self.read(depth + 1)
        return table

    def _torch(self, depth: int) -> np.ndarray:
        name = self.reader.text(self.reader.integer())
        if name.startswith(b"V "):  # the version of the class; files before 2012 have none
            name = self.reader.text(self.reader.integer())
        prefix, _, rest = name.decode("latin-1").partition(".")
        for kind, make in (("Tensor", self._tensor), ("Storage", self._storage)):
            dtype = _DTYPES.get(rest.removesuffix(kind))
            if prefix == "torch" and rest.endswith(kind) and dtype:
                return make(dtype, depth)
        raise ValueError(f"an object of class {name.decode('latin-1')!r}, which is not read")

    def _storage(self, dtype: str, depth: int) -> np.ndarray:
        return self.reader.array(dtype, self.reader.longs(1)[0])

    def _tensor(self, dtype: str, depth: int) -> np.ndarray:
        axes = self.reader.integer()
        if not 0 <= axes <= 32:
            raise ValueError(f"a tensor of {axes} axes")
        shape, strides = self.reader.longs(axes), self.reader.longs(axes)
        first = self.reader.longs(1)[0] - 1
        storage = self.read(depth + 1)
        if not axes or storage is None:
            return np.zeros(shape, dtype) if 0 in shape else np.zeros(0, dtype)
        last = first + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
        inside = isinstance(storage, np.ndarray) and 0 <= first <= last < len(storage)
        if min(shape) < 1 or min(strides) < 0 or not inside:
            raise ValueError(f"a tensor of shape {shape} that its storage cannot hold")
        steps = [step * storage.itemsize for step in strides]
        return np.lib.stride_tricks.as_strided(storage[first:], shape, steps, writeable=False).copy()
