"""File formats of published data sets: LeCun matrices, MATLAB files of both kinds, pickled pandas tables.

Nothing here runs code that a file brings along. A pickle is not loaded: its instructions are interpreted by a machine
that only knows plain values, see :func:`read_pickle`.
"""

from __future__ import annotations

import codecs
import math
import pickletools
import re
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ulm.errors import InputError

# What reading damaged files raises.
_DAMAGED = (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError, struct.error, RecursionError)

# --- LeCun's matrix format ------------------------------------------------------------------------------------------

_LECUN_TYPES = {
    0x1E3D4C51: "f4",
    0x1E3D4C53: "f8",
    0x1E3D4C54: "i4",
    0x1E3D4C55: "u1",
    0x1E3D4C56: "i2",
}
_LECUN_PACKED = 0x1E3D4C52


def read_lecun(path: str | Path, memory_map: bool = False) -> np.ndarray:
    """Read a matrix in LeCun's format, the files of smallNORB.

    The file is: a magic number that says the type of the entries, the number of dimensions, the dimensions (at least
    three are written, even for a vector), each 4 bytes, then the entries, last dimension fastest. Both byte orders
    are read; the magic number tells which one it is.

    Args:
        path: The file.
        memory_map: Leave the entries on the disk until they are used.

    Returns:
        Array of the file's own shape and type: uint8, int16, int32, float32 or float64.

    Raises:
        InputError: The file is missing, of another format (the ``.mat`` of smallNORB is not MATLAB's), or cut short.
    """
    path = existing(path)
    length = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(8)
        order, kind = _lecun_kind(path, head)
        rank = struct.unpack(f"{order}i", head[4:8])[0] if len(head) == 8 else -1
        written = max(rank, 3)
        sizes = file.read(4 * written) if 0 <= rank <= 32 else b""
    if rank < 0 or rank > 32 or len(sizes) < 4 * written:
        raise InputError(f"{path}: found a damaged header, expected a matrix in LeCun's format; unpack the file again")
    shape = struct.unpack(f"{order}{written}i", sizes)[:rank]
    dtype = np.dtype(order + kind)
    start = 8 + 4 * written
    expected = start + math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or length != expected:
        raise InputError(
            f"{path}: found {length} bytes, expected {expected} for {' x '.join(map(str, shape))} entries of "
            f"{dtype.itemsize} bytes; unpack or download the file again"
        )
    if memory_map and math.prod(shape):
        return np.memmap(path, dtype, "r", start, shape)
    values = np.fromfile(path, dtype, offset=start).reshape(shape)
    return values.astype(dtype.newbyteorder("="))


def _lecun_kind(path: Path, head: bytes) -> tuple[str, str]:
    """Byte order and type of the entries."""
    if head.startswith(b"MATLAB 5"[: max(len(head), 1)]):
        raise InputError(
            f"{path}: found a MATLAB file, expected a matrix in LeCun's format (smallNORB's files end in .mat but are "
            "not MATLAB's); take the original file"
        )
    if head[:2] == b"\x1f\x8b":
        raise InputError(f"{path}: found a gzip file, expected a matrix in LeCun's format; unpack it (gunzip)")
    for order in "<>":
        magic = struct.unpack(f"{order}I", head[:4])[0] if len(head) >= 4 else 0
        if magic in _LECUN_TYPES:
            return order, _LECUN_TYPES[magic]
        if magic == _LECUN_PACKED:
            raise InputError(f"{path}: found a packed matrix, which smallNORB does not use; take the original file")
    raise InputError(
        f"{path}: found no magic number of LeCun's format in the first bytes ({head[:4].hex() or 'none'}); "
        "unpack the file again"
    )


# --- MATLAB ---------------------------------------------------------------------------------------------------------


def read_matlab(path: str | Path, *names: str) -> dict[str, Any]:
    """Read a MATLAB file of version 4 to 7 as plain dicts, lists, strings and arrays.

    Structs become dicts, cells and arrays of structs become lists, but one of a single element becomes that element:
    see :func:`as_list`. Axes of length 1 are dropped.

    Args:
        path: The file.
        names: Variables that must be there (others are then not read); none: all of them.

    Returns:
        Name of the variable to value.

    Raises:
        InputError: The file is missing, damaged, of version 7.3, or lacks a variable.
    """
    import scipy.io

    path = existing(path)
    try:
        content = scipy.io.loadmat(path, simplify_cells=True, variable_names=names or None)
    except NotImplementedError:
        raise InputError(
            f"{path}: found a MATLAB file of version 7.3, expected version 5 to 7; take the original file, or save it "
            "with -v7"
        ) from None
    except (*_DAMAGED, OSError, EOFError, zlib.error, MemoryError, scipy.io.matlab.MatReadError) as error:
        raise InputError(
            f"{path}: found no readable MATLAB file ({_short(error)}); unpack or download the file again"
        ) from None
    content = {key: value for key, value in content.items() if not key.startswith("__")}
    if lost := [name for name in names if name not in content]:
        found = ", ".join(sorted(_variables(path))) or "none"
        raise InputError(f"{path}: found no variable {lost[0]!r} (it has {found}); take the original file")
    return content


def _variables(path: Path) -> list[str]:
    import scipy.io

    return [name for name, *_ in scipy.io.whosmat(path)]


def as_list(value: Any) -> list[Any]:
    """What MATLAB keeps as an array of structs or cells: a list, also where it has one element or none."""
    if isinstance(value, dict):
        return [value]
    if isinstance(value, np.ndarray):
        return list(value) if value.ndim else [value.item()]
    return list(value) if isinstance(value, list | tuple) else [value]


class Hdf5Matlab:
    """A MATLAB file of version 7.3, which is HDF5: structs with references, as SVHN's ``digitStruct.mat``.

    Use it as a context manager. MATLAB stores an array of structs as a group whose fields are arrays of references,
    one an element; a single struct keeps its values in place.

    Args:
        path: The file.

    Raises:
        InputError: The file is missing, damaged, or of an older version.
    """

    def __init__(self, path: str | Path):
        import h5py

        self.path = existing(path)
        try:
            self._file = h5py.File(self.path, "r")
        except OSError as error:
            raise InputError(
                f"{self.path}: found no readable MATLAB file of version 7.3 ({_short(error)}); unpack or download the "
                "file again"
            ) from None

    def __enter__(self) -> Hdf5Matlab:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def structs(self, name: str, *fields: str) -> Iterator[dict[str, Any]]:
        """The elements of an array of structs.

        Args:
            name: The variable.
            fields: The fields to read.

        Yields:
            One dict an element: text as str, numbers as float64 arrays ``(n,)``, structs as dicts of these.

        Raises:
            InputError: The variable, a field or a reference is missing or damaged.
        """
        import h5py

        group = self._file.get(name)
        if not isinstance(group, h5py.Group) or any(key not in group for key in fields):
            raise InputError(
                f"{self.path}: found no struct {name!r} with the fields {', '.join(fields)}; take the original file"
            )
        try:
            columns = [group[key][()].ravel() for key in fields]
            if len({len(column) for column in columns}) > 1:
                raise ValueError("fields of different lengths")
            for row in zip(*columns, strict=True):
                yield {key: self._value(reference) for key, reference in zip(fields, row, strict=True)}
        except (OSError, ValueError, TypeError, KeyError, RuntimeError, AttributeError) as error:
            raise InputError(
                f"{self.path}: found a damaged struct {name!r} ({_short(error)}); download it again"
            ) from None

    def _value(self, reference: Any) -> Any:
        """What a reference points to. The low-level interface: SVHN has millions of references."""
        from h5py import h5d, h5g, h5r

        node = h5r.dereference(reference, self._file.id)
        if isinstance(node, h5g.GroupID):
            return {name.decode(): self._numbers(h5d.open(node, name)) for name in node}
        if self._file[reference].attrs.get("MATLAB_class") == b"char":
            return "".join(chr(int(code)) for code in _read(node))
        return self._numbers(node)

    def _numbers(self, node: Any) -> np.ndarray:
        from h5py import h5r

        values = _read(node)
        if values.dtype.kind == "O":  # references: one number behind each
            values = np.array([_read(h5r.dereference(reference, self._file.id))[0] for reference in values])
        return values.astype(np.float64)


def _read(node: Any) -> np.ndarray:
    """A data set of HDF5 as a vector."""
    from h5py import h5s

    values = np.empty(node.shape, node.dtype)
    node.read(h5s.ALL, h5s.ALL, values)
    return values.ravel()


# --- pickles --------------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class Inert:
    """What a pickle wanted to build, written down and not built.

    Attributes:
        name: The module and the name of a class or function; empty where it is not a plain name.
        function: What was to be called, where it is not a plain name.
        arguments: The arguments of the call; None for the bare name.
        state: What was to be set afterwards.
        items: Elements that were to be appended or assigned.
    """

    name: str = ""
    function: Any = None
    arguments: tuple[Any, ...] | None = None
    state: Any = None
    items: list[Any] = field(default_factory=list)


class _Mark:
    """The stack's mark."""


_NO_ARRAY = object()
_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
# Instructions whose argument is the value itself: INT, BININT, STRING, BINBYTES, SHORT_BINUNICODE, BINFLOAT, ...
_LITERAL = re.compile(
    r"(BIN)?INT[12]?|LONG[14]?|(SHORT_)?(BIN)?(STRING|UNICODE)8?|(SHORT_)?BINBYTES8?|BYTEARRAY8|(BIN)?FLOAT"
)
_IGNORED = frozenset(("PROTO", "FRAME", "READONLY_BUFFER"))
_EMPTY: dict[str, Callable[[], Any]] = {"EMPTY_LIST": list, "EMPTY_TUPLE": tuple, "EMPTY_DICT": dict, "EMPTY_SET": set}


def read_pickle(path: str | Path) -> Any:
    """Interpret a pickle without executing it.

    Lists, tuples, dicts, sets, text, bytes and numbers come out as they are. Whatever the pickle asks to import, to
    call or to build stays an :class:`Inert` note: nothing is imported and nothing is called. :func:`to_array` turns
    the notes of numpy arrays into arrays.

    Args:
        path: The file; protocols 0 to 5.

    Raises:
        InputError: The file is missing, no pickle, or cut short.
    """
    path = existing(path)
    try:
        return _Machine().run(path.read_bytes())
    except _DAMAGED as error:
        raise InputError(
            f"{path}: found a damaged pickle, or none at all ({_short(error)}); download the file again"
        ) from None


class _Machine:
    """The stack machine of pickles, with notes in the place of objects."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self, data: bytes) -> Any:
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name == "STOP":
                return self.stack.pop()
            self.step(opcode.name, argument)
        raise ValueError("no end")

    def step(self, name: str, argument: Any) -> None:
        if name in _IGNORED:
            return
        if name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif _LITERAL.fullmatch(name):
            self.stack.append(argument)
        elif name in _EMPTY:
            self.stack.append(_EMPTY[name]())
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = self.stack[-1]
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self.memo[int(argument)] = self.stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[int(argument)])
        else:
            operation = getattr(self, f"_{name.lower()}", None)
            if operation is None:
                raise ValueError(f"instruction {name}")
            operation(argument)

    def since_mark(self) -> list[Any]:
        """Take everything above the last mark, and the mark."""
        for place in range(len(self.stack) - 1, -1, -1):
            if self.stack[place] is _Mark:
                items = self.stack[place + 1 :]
                del self.stack[place:]
                return items
        raise ValueError("no mark")

    def _mark(self, _: Any) -> None:
        self.stack.append(_Mark)

    def _pop(self, _: Any) -> None:
        self.stack.pop()

    def _pop_mark(self, _: Any) -> None:
        self.since_mark()

    def _dup(self, _: Any) -> None:
        self.stack.append(self.stack[-1])

    def _tuple(self, _: Any) -> None:
        self.stack.append(tuple(self.since_mark()))

    def _tuple1(self, _: Any) -> None:
        self._tuple_of(1)

    def _tuple2(self, _: Any) -> None:
        self._tuple_of(2)

    def _tuple3(self, _: Any) -> None:
        self._tuple_of(3)

    def _tuple_of(self, count: int) -> None:
        items = tuple(self.stack[-count:])
        if len(items) < count:
            raise IndexError("empty stack")
        self.stack[-count:] = [items]

    def _list(self, _: Any) -> None:
        self.stack.append(self.since_mark())

    def _dict(self, _: Any) -> None:
        items = self.since_mark()
        self.stack.append(dict(zip(items[::2], items[1::2], strict=True)))

    def _frozenset(self, _: Any) -> None:
        self.stack.append(frozenset(self.since_mark()))

    def _append(self, _: Any) -> None:
        self._extend([self.stack.pop()])

    def _appends(self, _: Any) -> None:
        self._extend(self.since_mark())

    def _extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        (target.items if isinstance(target, Inert) else target).extend(items)

    def _additems(self, _: Any) -> None:
        items = self.since_mark()
        self.stack[-1].update(items)

    def _setitem(self, _: Any) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._assign([key, value])

    def _setitems(self, _: Any) -> None:
        self._assign(self.since_mark())

    def _assign(self, items: list[Any]) -> None:
        pairs, target = list(zip(items[::2], items[1::2], strict=True)), self.stack[-1]
        if isinstance(target, Inert):
            target.items.extend(pairs)
        else:
            target.update(pairs)

    def _global(self, argument: str) -> None:
        self.stack.append(Inert(name=".".join(argument.split(" ", 1))))

    def _stack_global(self, _: Any) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise ValueError("a name that is no text")
        self.stack.append(Inert(name=f"{module}.{name}"))

    def _reduce(self, _: Any) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        self._call(function, arguments)

    _newobj = _reduce

    def _newobj_ex(self, _: Any) -> None:
        keywords, arguments, function = self.stack.pop(), self.stack.pop(), self.stack.pop()
        self._call(function, arguments)
        self.stack[-1].items.extend(keywords.items())

    def _obj(self, _: Any) -> None:
        function, *arguments = self.since_mark()
        self._call(function, tuple(arguments))

    def _inst(self, argument: str) -> None:
        self._call(Inert(name=".".join(argument.split(" ", 1))), tuple(self.since_mark()))

    def _call(self, function: Any, arguments: Any) -> None:
        if not isinstance(arguments, tuple):
            raise ValueError("a call without arguments")
        bare = isinstance(function, Inert) and function.arguments is None
        self.stack.append(Inert(function.name if bare else "", function, arguments))

    def _build(self, _: Any) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if not isinstance(target, Inert):
            raise ValueError("a state for a plain value")
        target.state = state


_RECONSTRUCT = ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct")
_FROM_BUFFER = ("numpy.core.numeric._frombuffer", "numpy._core.numeric._frombuffer")
_SCALAR = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")


def to_array(value: Any) -> np.ndarray:
    """Turn the note of a numpy array into the array.

    Known are arrays of whole and floating-point numbers, of truth values and of objects; elements of the last kind
    stay as they are (:func:`to_array` again turns those that are arrays). A pandas array that wraps one numpy array
    (text columns) gives that one.

    Raises:
        InputError: It is something else.
    """
    try:
        array = _to_array(value)
    except _DAMAGED as error:
        raise InputError(f"found a damaged array in the pickle ({_short(error)}); download the file again") from None
    if array is _NO_ARRAY:
        what = (value.name or "an object") if isinstance(value, Inert) else type(value).__name__
        raise InputError(f"found {what} in the pickle, expected an array of numpy; save it again as one")
    return array


def _to_array(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, list | tuple):
        return np.array([_number(item) for item in value])
    if not isinstance(value, Inert) or value.arguments is None:
        return _NO_ARRAY
    if value.name in _RECONSTRUCT and isinstance(value.state, tuple):
        _, shape, dtype, fortran, content = value.state
        return _shape(_dtype(dtype), shape, "F" if fortran else "C", content)
    if value.name in _FROM_BUFFER:
        content, dtype, shape, order = value.arguments[:4]
        return _shape(_dtype(dtype), shape, order, content)
    # pandas' own arrays hold a numpy array among the parts of their state.
    parts = value.state if isinstance(value.state, tuple | list) else ()
    if isinstance(value.state, dict):
        parts = tuple(value.state.values())
    inner = [array for part in parts if isinstance(part, Inert) and (array := _to_array(part)) is not _NO_ARRAY]
    return inner[0] if len(inner) == 1 else _NO_ARRAY


def _shape(dtype: np.dtype, shape: tuple[int, ...], order: str, content: Any) -> np.ndarray:
    if not isinstance(shape, tuple) or not all(isinstance(n, int) and n >= 0 for n in shape) or order not in ("C", "F"):
        raise ValueError("a shape that is none")
    if dtype.kind == "O":
        if not isinstance(content, list) or len(content) != math.prod(shape):
            raise ValueError(f"{shape} objects, but other contents")
        flat = np.empty(len(content), object)
        for place, item in enumerate(content):
            flat[place] = item
        return flat.reshape(shape, order=order)
    return np.frombuffer(_bytes(content), dtype).reshape(shape, order=order)


def _bytes(value: Any) -> bytes:
    """Bytes, as protocols from 3 on keep them, or as text that was to be encoded (2), or as Python 2's strings."""
    if isinstance(value, bytes | bytearray):
        return bytes(value)
    if isinstance(value, str):
        return value.encode("latin-1")
    if isinstance(value, Inert) and value.name == "_codecs.encode" and value.arguments is not None:
        text, encoding = value.arguments
        if isinstance(text, str) and codecs.lookup(encoding).name == "iso8859-1":
            return text.encode("latin-1")
    if isinstance(value, Inert) and value.name in ("__builtin__.bytes", "builtins.bytes") and not value.arguments:
        return b""
    raise ValueError("contents that are no bytes")


def _dtype(value: Any) -> np.dtype:
    if not isinstance(value, Inert) or value.name != "numpy.dtype" or not value.arguments:
        raise ValueError("a type that is none")
    code = _bytes(value.arguments[0]).decode("latin-1")
    if code[:1] == "O":
        return np.dtype(object)
    if code[:1] not in "biuf" or not code[1:].isdigit():
        raise ValueError(f"entries of type {code}")
    order = value.state[1] if isinstance(value.state, tuple) and len(value.state) > 1 else "="
    order = _bytes(order).decode("latin-1")
    return np.dtype(code).newbyteorder(order if order in ("<", ">") else "=")


def _number(value: Any) -> Any:
    """A plain number, list of numbers or small array as numpy takes it."""
    if isinstance(value, int | float):
        return value
    if isinstance(value, Inert) and value.name in _SCALAR and value.arguments is not None:
        dtype, content = value.arguments
        return np.frombuffer(_bytes(content), _dtype(dtype))[0]
    return to_array(value)


# --- tables of pandas -----------------------------------------------------------------------------------------------


_MOST_COLUMNS = 10**6


def read_pandas(path: str | Path, *columns: str) -> dict[str, list[Any]]:
    """Pick columns out of a pickled pandas ``DataFrame``, without pandas and without executing the pickle.

    The layouts of pandas 0.25 to 3 are known: the block manager as a tuple of axes, values and items (to 1.2), as
    blocks made by ``new_block`` (1.3), and by ``_unpickle_block`` (since 1.4).

    Args:
        path: The pickle.
        columns: The columns to read.

    Returns:
        Name of the column to its values, one a row; text as str, arrays and nested lists of numbers as
        ``numpy.ndarray``, numbers as numbers.

    Raises:
        InputError: The file is missing, damaged or no table, lacks a column, or holds something else in it.
    """
    path = existing(path)
    table = read_pickle(path)
    try:
        blocks, names, rows = _blocks(table)
        if lost := [name for name in columns if names.count(name) != 1]:
            raise InputError(f"found no column {lost[0]!r} (there are {', '.join(map(str, names))}); take the original")
        return {name: _column(blocks, names.index(name), rows) for name in columns}
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except _DAMAGED as error:
        raise InputError(f"{path}: found a table that cannot be read ({_short(error)}); save it again") from None


def _blocks(table: Any) -> tuple[list[tuple[list[int], np.ndarray]], list[Any], int]:
    """The blocks (their columns' places, and values (columns, rows)), the names of the columns, the number of rows."""
    name = table.name if isinstance(table, Inert) else type(table).__name__
    if not name.startswith("pandas.") or not name.endswith("DataFrame") or not isinstance(table.state, dict):
        raise InputError(f"found {name or 'an object'} in the pickle, expected a DataFrame of pandas; save one")
    manager = table.state.get("_mgr", table.state.get("_data"))
    if not isinstance(manager, Inert) or not manager.name.endswith("BlockManager"):
        raise InputError("found a DataFrame without its block manager; save it again with a current pandas")
    axes, blocks = _old_manager(manager.state) if manager.state is not None else _new_manager(manager.arguments)
    rows = _index_length(axes[1])
    for places, values in blocks:
        if values.shape != (len(places), rows):
            raise InputError(f"found a block of {values.shape}, expected {len(places)} columns of {rows} rows")
    return blocks, _index(axes[0]), rows


def _old_manager(state: Any) -> tuple[Any, list[tuple[list[int], np.ndarray]]]:
    """Of pandas 0.14 to 1.2: the last part of the state holds axes and blocks by name."""
    parts = state[-1] if isinstance(state, tuple) else None
    if not isinstance(parts, dict) or "0.14.1" not in parts:
        raise InputError("found a table of a pandas older than 0.14; save it again with a current one")
    content = parts["0.14.1"]
    return content["axes"], [(_places(b["mgr_locs"]), to_array(b["values"])) for b in content["blocks"]]


def _new_manager(arguments: Any) -> tuple[Any, list[tuple[list[int], np.ndarray]]]:
    """Since pandas 1.3: the manager is made from its blocks and its axes."""
    blocks, axes = arguments
    found = []
    for block in blocks:
        if not isinstance(block, Inert) or block.arguments is None or not _makes_block(block):
            raise InputError("found a block of an unknown kind in the table; save it again with a current pandas")
        values, places = block.arguments[:2]
        array, where = to_array(values), _places(places)
        # Text columns of extension types are vectors, one a block.
        found.append((where, array[None] if array.ndim == 1 and len(where) == 1 else array))
    return axes, found


def _makes_block(block: Inert) -> bool:
    function = block.function
    # pandas 1.3 writes functools.partial(new_block, ndim=2).
    if isinstance(function, Inert) and function.name == "functools.partial" and function.arguments:
        function = function.arguments[0]
    name = function.name if isinstance(function, Inert) else ""
    return name.startswith("pandas.") and name.rsplit(".", 1)[-1] in ("new_block", "_unpickle_block")


def _places(value: Any) -> list[int]:
    if isinstance(value, Inert) and value.name in ("builtins.slice", "__builtin__.slice") and value.arguments:
        start, stop, step = value.arguments
        if stop - start > _MOST_COLUMNS:
            raise ValueError(f"{stop - start} columns")
        return list(range(start, stop, step or 1))
    return [int(place) for place in to_array(value)]


def _index(value: Any) -> list[Any]:
    """The labels of an axis."""
    kind, content = _index_parts(value)
    if kind.endswith("RangeIndex"):
        return list(range(content["start"], min(content["stop"], content["start"] + _MOST_COLUMNS), content["step"]))
    return [_cell(item) for item in to_array(content["data"])]


def _index_length(value: Any) -> int:
    kind, content = _index_parts(value)
    if kind.endswith("RangeIndex"):
        return len(range(content["start"], content["stop"], content["step"]))
    return len(to_array(content["data"]))


def _index_parts(value: Any) -> tuple[str, dict[str, Any]]:
    if isinstance(value, Inert) and value.name.endswith("._new_Index") and value.arguments:
        kind, content = value.arguments
        if isinstance(kind, Inert) and isinstance(content, dict):
            return kind.name, content
    raise InputError("found an index of an unknown kind in the table; save it again with reset_index()")


def _column(blocks: list[tuple[list[int], np.ndarray]], place: int, rows: int) -> list[Any]:
    for places, values in blocks:
        if place in places:
            return [_cell(value) for value in values[places.index(place)]]
    raise ValueError(f"no values of column {place}")


def _cell(value: Any) -> Any:
    """One value of a table: text, a number or an array; anything else is refused."""
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, bytes):
        return value.decode("utf-8")
    if isinstance(value, Inert) and value.name in _SCALAR:
        return _number(value).item()
    array = to_array(value)
    if array.dtype.kind == "O":
        array = np.array([_number(item) for item in array.ravel()]).reshape(array.shape)
    return array


# --- shared ---------------------------------------------------------------------------------------------------------


def existing(path: str | Path) -> Path:
    """The path, if a file is there; raises InputError."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"found no file {path}; unpack the data set there, or check the path")
    return path


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__


def folder_and_options(root: str | Path, known: Sequence[str]) -> tuple[Path, tuple[str, ...]]:
    """Split ``FOLDER#a,b`` into the folder and the options; a folder whose own name has a ``#`` is left whole.

    Raises:
        InputError: An option that this data set does not know.
    """
    text = str(root)
    if "#" not in text or Path(text).exists():
        return Path(text), ()
    folder, _, rest = text.rpartition("#")
    options = tuple(option.strip() for option in rest.split(",") if option.strip())
    if wrong := [option for option in options if option not in known]:
        raise InputError(f"found the option {wrong[0]!r} in {text}, expected {', '.join(known)} after the #")
    return Path(folder), options
