"""NumPy files that anybody can make: read as numpy does, or refused in one line, without pickle and in bounded memory."""

from __future__ import annotations

import io
import os
import pickle
import sys
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from onnxlint.errors import OnnxlintError
from onnxlint.model.arrays import read_arrays, read_inputs

ARRAYS = npst.arrays(
    st.sampled_from([np.dtype(name) for name in ("f4", "f2", ">f8", "i8", "u1", "?", "c8", "U3", "S5")]),
    npst.array_shapes(min_dims=0, min_side=0, max_side=4),
)


@given(ARRAYS, st.booleans(), st.booleans())
def test_what_numpy_wrote_is_read(
    tmp_path_factory: pytest.TempPathFactory, array: np.ndarray, f: bool, npz: bool
) -> None:
    path = str(tmp_path_factory.mktemp("arrays") / ("a.npz" if npz else "a.npy"))
    array = np.asfortranarray(array) if f else array
    if npz:
        np.savez_compressed(path, a=array, b=array[None])
        found = read_arrays(path, {"a"})
        assert list(found) == ["a"]
    else:
        np.save(path, array)
        found = read_arrays(path)
        assert list(found) == [""]
    (one,) = found.values()
    assert (one.shape, one.dtype) == (array.shape, array.dtype)
    np.testing.assert_array_equal(one, array)


def npy(header: bytes, data: bytes = b"") -> bytes:
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + data


def archive(**members: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            # Without the time of day, which would be in the names of tests: processes that share them need the same.
            file.writestr(zipfile.ZipInfo(name.replace("_", ".")), data, zipfile.ZIP_DEFLATED)
    return stream.getvalue()


HEADER = b"{'descr': '<f4', 'fortran_order': False, 'shape': %s, }"
PICKLE = pickle.dumps(np.array([1], object))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a complete"),
        (b"PK\x03\x04", "is not a complete"),
        (npy(HEADER % b"(3000000000000,)", b"x" * 100), "claims 12.0 TB and has 100 bytes"),
        (npy(HEADER % b"(-1,)"), "impossible shape"),
        (npy(HEADER % b"(True, 2)", b"\0" * 8), "impossible shape"),
        (npy(HEADER % b"(0, 9223372036854775807, 3)"), "impossible shape"),
        (npy(HEADER % b"f(1)"), "no header that NumPy reads (malformed node or string on line 1); save"),
        (npy(HEADER % (b"(" + b"(" * 500)), "no header that NumPy reads"),
        (npy(HEADER % (b"(" + b"1," * 3000 + b")")), "impossible shape|no header that NumPy reads"),
        (npy(b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", PICKLE), "holds Python objects"),
        (
            npy(b"{'descr': '<M8[s]', 'fortran_order': False, 'shape': (1,), }", b"\0" * 8),
            "holds datetime64[s], neither numbers nor",
        ),
        (npy(b"__import__('os').abort()"), "no header that NumPy reads"),
        (b"\x93NUMPY\x09\x00", "no header that NumPy reads"),
        (archive(a_txt=b"hello"), "holds no array (a.txt)"),
        (archive(a_npy=b"hello"), "array 'a': has no header"),
        (archive(a_npy=npy(HEADER % b"(1000000000,)")), "array 'a': claims 4.0 GB and has 0 bytes"),
        (archive(a_npy=npy(HEADER % b"(4,)", b"\0" * 16))[:-30], "is not a complete"),
    ],
)
def test_what_is_broken_is_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "x.npz"
    path.write_bytes(content)
    tracemalloc.start()
    with pytest.raises(OnnxlintError) as error:
        read_arrays(str(path))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    text = str(error.value)
    assert text.startswith(str(path))
    assert "\n" not in text
    assert any(part in text for part in message.split("|")), text
    assert peak < 50_000_000


def test_a_file_that_claims_to_unpack_to_more_than_it_can_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.npz"
    data = bytearray(archive(a_npy=npy(HEADER % b"(64,)", b"\0" * 256)))
    at = data.rfind(b"PK\x01\x02")
    data[at + 24 : at + 28] = (2**31).to_bytes(4, "little")  # the size that the directory claims
    path.write_bytes(data)
    with pytest.raises(OnnxlintError, match=r"claims 1 array of 2.1 GB"):
        read_arrays(str(path))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.integers(0, 400), st.binary(min_size=1, max_size=8), st.booleans())
@example(at=0, junk=b"\0", npz=True)
def test_any_damage_is_one_line_or_none(tmp_path: Path, at: int, junk: bytes, npz: bool) -> None:
    stream = io.BytesIO()
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    if npz:
        np.savez_compressed(stream, a=array, b=array)
    else:
        np.save(stream, array)
    data = bytearray(stream.getvalue())
    at %= len(data)
    data[at : at + len(junk)] = junk
    path = tmp_path / "damaged"
    path.write_bytes(data)
    said = ""
    found: dict[str, np.ndarray] = {}
    try:
        found = read_arrays(str(path))
    except OnnxlintError as error:
        said = str(error)
    assert "\n" not in said
    assert bool(said) is not bool(found)
    assert all(isinstance(one, np.ndarray) and one.dtype != object for one in found.values())


def test_an_npy_file_is_that_of_the_only_input(tmp_path: Path) -> None:
    path = str(tmp_path / "x.npy")
    np.save(path, np.zeros(3))
    assert list(read_inputs(path, ["x"])) == ["x"]
    with pytest.raises(OnnxlintError, match=r"no array for input 'x' \(it has one without a name\)"):
        read_inputs(path, ["x", "y"])
    with pytest.raises(OnnxlintError, match="No such file"):
        read_inputs(str(tmp_path / "none.npy"), ["x"])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason=f"{sys.platform} has no FIFOs")
def test_special_files_are_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    os.mkfifo(path)
    for one in (str(path), os.devnull, str(tmp_path)):
        with pytest.raises(OnnxlintError, match=r"is not a regular file|Is a directory"):
            read_arrays(one)
