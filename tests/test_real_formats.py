"""File formats of published data sets, written by their own libraries and read back."""

from __future__ import annotations

import contextlib
import copyreg
import io
import os
import pickle
import struct
import zlib
from functools import partial
from pathlib import Path
from types import FunctionType
from typing import Any, ClassVar

import h5py
import numpy as np
import pandas
import pytest
import scipy.io
from pandas.core.internals.managers import BlockManager

from ulm.datasets.real.formats import (
    Hdf5Matlab,
    Inert,
    as_list,
    read_lecun,
    read_matlab,
    read_pandas,
    read_pickle,
    to_array,
)
from ulm.errors import InputError

# --- LeCun ---

MAGIC = {"u1": 0x1E3D4C55, "i2": 0x1E3D4C56, "i4": 0x1E3D4C54, "f4": 0x1E3D4C51, "f8": 0x1E3D4C53}


def lecun(values: np.ndarray, order: str = "<") -> bytes:
    shape = (*values.shape, *[1] * max(0, 3 - values.ndim))
    head = struct.pack(f"{order}Ii{len(shape)}i", MAGIC[values.dtype.str[1:]], values.ndim, *shape)
    return head + values.astype(values.dtype.newbyteorder(order)).tobytes()


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", list(MAGIC))
def test_lecun_types_and_byte_orders(tmp_path: Path, kind: str, order: str) -> None:
    for shape in ((5,), (3, 2), (2, 3, 4), (2, 2, 3, 4)):
        values = np.arange(np.prod(shape)).reshape(shape).astype(kind)
        (tmp_path / "x.mat").write_bytes(lecun(values, order))
        for memory_map in (False, True):
            read = read_lecun(tmp_path / "x.mat", memory_map)
            assert read.shape == shape
            assert np.array_equal(read, values)
        assert read_lecun(tmp_path / "x.mat").dtype == np.dtype(kind)


def test_lecun_refuses_other_and_damaged_files(tmp_path: Path) -> None:
    whole = lecun(np.arange(24, dtype="i4").reshape(2, 3, 4))
    scipy.io.savemat(tmp_path / "matlab.mat", {"x": np.zeros(3)})
    files = {
        "short.mat": (whole[:-1], "bytes"),
        "long.mat": (whole + b"0", "bytes"),
        "head.mat": (whole[:14], "header"),
        "five.mat": (whole[:5], "header"),
        "empty.mat": (b"", "magic number"),
        "noise.mat": (b"abcdefgh" * 9, "magic number"),
        "packed.gz": (b"\x1f\x8b" + whole, "gunzip"),
        "packed.mat": (struct.pack("<I", 0x1E3D4C52) + whole[4:], "packed"),
        "negative.mat": (whole[:8] + struct.pack("<3i", -2, 3, 4) + whole[20:], "bytes"),
        "rank.mat": (whole[:4] + struct.pack("<i", 2**31 - 1) + whole[8:], "header"),
    }
    for name, (content, words) in files.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=words):
            read_lecun(tmp_path / name)
    with pytest.raises(InputError, match="MATLAB"):
        read_lecun(tmp_path / "matlab.mat")
    with pytest.raises(InputError, match="no file"):
        read_lecun(tmp_path / "none.mat")


# --- MATLAB ---


def test_matlab_structs_become_dicts(tmp_path: Path) -> None:
    people = np.array([("ann", np.eye(2)), ("bob", np.ones(3))], dtype=[("name", "O"), ("x", "O")])
    scipy.io.savemat(tmp_path / "a.mat", {"people": people, "one": people[:1], "n": 3}, do_compression=True)
    content = read_matlab(tmp_path / "a.mat", "people", "one")
    assert [p["name"] for p in as_list(content["people"])] == ["ann", "bob"]
    assert [p["name"] for p in as_list(content["one"])] == ["ann"]
    assert set(content) == {"people", "one"}
    assert set(read_matlab(tmp_path / "a.mat")) == {"people", "one", "n"}
    assert as_list(np.zeros(0)) == []
    with pytest.raises(InputError, match=r"'dogs'.*it has n, one, people"):
        read_matlab(tmp_path / "a.mat", "dogs")


def test_matlab_refuses_damaged_files(tmp_path: Path) -> None:
    scipy.io.savemat(tmp_path / "a.mat", {"x": np.random.default_rng(0).random((40, 40))}, do_compression=True)
    whole = (tmp_path / "a.mat").read_bytes()
    for content in (b"", b"hello", whole[:150], whole[: len(whole) // 2], whole[:200] + b"\0" * 100 + whole[300:]):
        (tmp_path / "b.mat").write_bytes(content)
        with pytest.raises(InputError, match=r"b\.mat"):
            read_matlab(tmp_path / "b.mat", "x")
    seven = b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM"
    (tmp_path / "c.mat").write_bytes(seven + b"\0" * 400)
    with pytest.raises(InputError, match=r"7\.3"):
        read_matlab(tmp_path / "c.mat")


def digit_struct(path: Path, rows: list[tuple[str, dict[str, list[float]]]], bare: bool = False) -> None:
    """Write ``digitStruct`` as MATLAB does with -v7.3; single numbers lie in place, more behind references."""
    with h5py.File(path, "w", userblock_size=512) as file:
        group, refs = file.create_group("digitStruct"), file.create_group("#refs#")
        reference = h5py.special_dtype(ref=h5py.Reference)
        names = group.create_dataset("name", (len(rows), 1), reference)
        boxes = group.create_dataset("bbox", (len(rows), 1), reference)
        for i, (name, columns) in enumerate(rows):
            text = refs.create_dataset(f"n{i}", data=np.array([[ord(c)] for c in name], np.uint16))
            if not bare:
                text.attrs["MATLAB_class"] = np.bytes_("char")
            box = refs.create_group(f"b{i}")
            for key, values in columns.items():
                if len(values) == 1:
                    box.create_dataset(key, data=np.array([values]))
                    continue
                column = box.create_dataset(key, (len(values), 1), reference)
                for j, value in enumerate(values):
                    column[j, 0] = refs.create_dataset(f"{key}{i}_{j}", data=np.array([[float(value)]])).ref
            names[i, 0], boxes[i, 0] = text.ref, box.ref
    with path.open("r+b") as raw:
        raw.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")


def test_hdf5_matlab_follows_references(tmp_path: Path) -> None:
    rows = [("1.png", {"label": [5.0], "left": [43.0]}), ("2.png", {"label": [2.0, 10.0], "left": [3.0, 9.0]})]
    digit_struct(tmp_path / "d.mat", rows)
    with Hdf5Matlab(tmp_path / "d.mat") as file:
        read = list(file.structs("digitStruct", "name", "bbox"))
    assert [r["name"] for r in read] == ["1.png", "2.png"]
    assert [r["bbox"]["label"].tolist() for r in read] == [[5.0], [2.0, 10.0]]
    assert read[1]["bbox"]["left"].tolist() == [3.0, 9.0]


def test_hdf5_matlab_refuses(tmp_path: Path) -> None:
    digit_struct(tmp_path / "d.mat", [("1.png", {"label": [5.0]})])
    with Hdf5Matlab(tmp_path / "d.mat") as file, pytest.raises(InputError, match="no struct 'cats'"):
        list(file.structs("cats", "name"))
    with h5py.File(tmp_path / "g.mat", "w") as file:
        file.create_dataset("digitStruct/name", (2, 1), h5py.special_dtype(ref=h5py.Reference))  # to nowhere
    with Hdf5Matlab(tmp_path / "g.mat") as file, pytest.raises(InputError, match="damaged struct"):
        list(file.structs("digitStruct", "name"))
    whole = (tmp_path / "d.mat").read_bytes()
    (tmp_path / "e.mat").write_bytes(whole[: len(whole) // 2])
    scipy.io.savemat(tmp_path / "f.mat", {"x": 1})
    for name in ("e.mat", "f.mat"):
        with pytest.raises(InputError, match=r"7\.3"):
            Hdf5Matlab(tmp_path / name)


# --- pickles ---

POSES = [np.arange(36.0).reshape(18, 2) + i for i in range(3)]
NAMES = ["a.png", "b.png", "c.png"]


def table(**extra: Any) -> pandas.DataFrame:
    return pandas.DataFrame({"file_name": NAMES, "value": POSES, **extra})


def check_table(path: Path) -> None:
    read = read_pandas(path, "file_name", "value")
    assert read["file_name"] == NAMES
    assert np.array_equal(np.stack(read["value"]), np.stack(POSES))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pandas_of_today(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "t.pkl"
    for frame in (table(), table().astype(object), table(n=[1, 2, 3], x=[0.5, 1.0, 2.0])):
        frame.to_pickle(path, protocol=protocol)
        check_table(path)
    assert read_pandas(path, "n", "x") == {"n": [1, 2, 3], "x": [0.5, 1.0, 2.0]}
    chosen = table(value2=[p.tolist() for p in POSES])[1:]
    chosen.to_pickle(path, protocol=protocol)
    assert np.array_equal(np.stack(read_pandas(path, "value2")["value2"]), np.stack(POSES[1:]))


class Note:
    """Something that pickles as a call of ``function`` on ``arguments``, then ``state``."""

    def __init__(self, function: Any, arguments: tuple[Any, ...], state: Any = None):
        self.parts = (function, arguments, *([state] if state is not None else []))

    def __reduce__(self) -> tuple[Any, ...]:
        return self.parts


class Renaming(pickle._Pickler):  # type: ignore[name-defined]
    """Writes classes under the names that they had, and ``NEWOBJ`` for the notes that ask for it."""

    renamed: ClassVar[dict[Any, tuple[str, str]]] = {
        pandas.DataFrame: ("pandas.core.frame", "DataFrame"),
        pandas.Index: ("pandas.core.indexes.base", "Index"),
        pandas.RangeIndex: ("pandas.core.indexes.range", "RangeIndex"),
    }

    def save_global(self, obj: Any, name: str | None = None) -> None:
        module, name = self.renamed.get(obj, (getattr(obj, "__module__", ""), obj.__qualname__))
        self.write(pickle.GLOBAL + f"{module}\n{name}\n".encode())

    def save_reduce(self, *parts: Any, obj: Any = None, **more: Any) -> None:
        super().save_reduce(*parts, obj=None, **more)

    def save_type(self, obj: Any) -> None:
        self.save_global(obj)

    dispatch = pickle._Pickler.dispatch | {type: save_type, FunctionType: save_type}  # type: ignore[attr-defined]


def dump(path: Path, value: Any, protocol: int) -> None:
    buffer = io.BytesIO()
    Renaming(buffer, protocol).dump(value)
    path.write_bytes(buffer.getvalue())


def objects(items: list[Any]) -> np.ndarray:
    array = np.empty(len(items), object)
    array[:] = items
    return array


def axis(labels: list[str]) -> Note:
    return Note(_new_Index, (pandas.Index, {"data": objects(labels), "name": None}))


def _new_Index(kind: Any, content: Any) -> Any:
    raise AssertionError("never called")


def new_block(values: Any, placement: Any, *, ndim: int) -> Any:
    raise AssertionError("never called")


_new_Index.__module__ = "pandas.core.indexes.base"
new_block.__module__ = "pandas.core.internals.blocks"


def rows_axis() -> Note:
    return Note(_new_Index, (pandas.RangeIndex, {"name": None, "start": 0, "stop": 3, "step": 1}))


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("key", ["_data", "_mgr"])
@pytest.mark.parametrize("place", [slice(0, 2, 1), np.array([0, 1])])
def test_pandas_0_25_to_1_2(tmp_path: Path, protocol: int, key: str, place: Any) -> None:
    values = np.empty((2, 3), object)
    values[0], values[1] = NAMES, objects(POSES)
    axes = [axis(["file_name", "value"]), rows_axis()]
    blocks = [{"values": values, "mgr_locs": place}]
    state = (axes, [values], [axes[0]], {"0.14.1": {"axes": axes, "blocks": blocks}})
    manager = Note(copyreg.__newobj__, (BlockManager,), state)
    frame = Note(copyreg.__newobj__, (pandas.DataFrame,), {key: manager, "_typ": "dataframe", "_metadata": []})
    dump(tmp_path / "t.pkl", frame, protocol)
    check_table(tmp_path / "t.pkl")


def test_pandas_1_3(tmp_path: Path) -> None:
    values = np.empty((2, 3), object)
    values[0], values[1] = NAMES, objects(POSES)
    block = Note(partial(new_block, ndim=2), (values, slice(0, 2, 1)))
    manager = Note(BlockManager, ((block,), [axis(["file_name", "value"]), rows_axis()]))
    frame = Note(copyreg.__newobj__, (pandas.DataFrame,), {"_mgr": manager, "_typ": "dataframe"})
    dump(tmp_path / "t.pkl", frame, 4)
    check_table(tmp_path / "t.pkl")


class Evil:
    def __init__(self, command: str):
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


@pytest.mark.parametrize("protocol", range(6))
def test_malicious_pickle_runs_nothing(tmp_path: Path, protocol: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickle, "loads", None)
    monkeypatch.setattr(pickle, "load", None)
    mark, path = tmp_path / "mark", tmp_path / "t.pkl"
    evil = Evil(f"touch {mark}")
    path.write_bytes(pickle.dumps(evil, protocol))
    note = read_pickle(path)
    assert isinstance(note, Inert)
    assert note.name.endswith(".system")
    with pytest.raises(InputError, match="system"):
        read_pandas(path, "value")
    frame = pandas.DataFrame({"file_name": NAMES, "value": objects([evil, *POSES[1:]])})
    if protocol >= 2:
        frame.to_pickle(path, protocol=protocol)
        with pytest.raises(InputError, match="system"):
            read_pandas(path, "value")
        assert read_pandas(path, "file_name") == {"file_name": NAMES}
    assert not mark.exists()


def test_plain_values_come_out_as_they_are(tmp_path: Path) -> None:
    value = {"a": [1, -5, 2**40, 2**90, 1.5, None, True], "b": (b"x", "y", (), (1,), (1, 2, 3)), 3: {4, 5}}
    for protocol in range(6):
        (tmp_path / "v.pkl").write_bytes(pickle.dumps(value, protocol))
        read = read_pickle(tmp_path / "v.pkl")
        assert read["a"] == value["a"]
        if protocol >= 4:
            assert read == value


@pytest.mark.parametrize("dtype", ["f4", ">f8", "i8", "u1", "?", "f2"])
def test_arrays(tmp_path: Path, dtype: str) -> None:
    for array in (
        np.arange(6).reshape(2, 3).astype(dtype),
        np.asfortranarray(np.arange(6).reshape(2, 3).astype(dtype)),
    ):
        for protocol in range(6):
            (tmp_path / "v.pkl").write_bytes(pickle.dumps(array, protocol))
            if protocol < 2:
                continue
            read = to_array(read_pickle(tmp_path / "v.pkl"))
            assert np.array_equal(read, array)
            assert read.dtype == array.dtype


def test_damaged_pickles_give_one_error(tmp_path: Path) -> None:
    path = tmp_path / "t.pkl"
    table().to_pickle(path, protocol=4)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for end in [0, 1, 10, *rng.integers(20, len(whole), 60)]:
        path.write_bytes(whole[:end])
        with pytest.raises(InputError):
            read_pandas(path, "value")
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[int(rng.integers(len(whole)))] = int(rng.integers(256))
        path.write_bytes(bytes(damaged))
        with contextlib.suppress(InputError):
            read_pandas(path, "file_name", "value")
    path.write_bytes(zlib.compress(whole))
    with pytest.raises(InputError):
        read_pandas(path, "value")


def test_tables_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "t.pkl"
    for value, words in (([1, 2], "list"), (np.zeros(3), "_reconstruct|frombuffer"), (table()["value"], "Series")):
        path.write_bytes(pickle.dumps(value, 4))
        with pytest.raises(InputError, match=words):
            read_pandas(path, "value")
    table().to_pickle(path)
    with pytest.raises(InputError, match=r"no column 'pose'.*file_name, value"):
        read_pandas(path, "pose")
    table().assign(date=pandas.date_range("2020", periods=3)).to_pickle(path)
    with pytest.raises(InputError):
        read_pandas(path, "date")
