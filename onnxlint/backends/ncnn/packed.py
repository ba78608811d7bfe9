"""Blobs as they lie in ncnn's memory: n channels beside each other, neither unpacked nor copied."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Packed:
    """The values (C, …) of a float blob.

    Attributes:
        laid: (C / n, …), of which the last axis is n times as long; a vector as it is.
        pack: n.
        mat: ncnn's, which another net can read.
    """

    laid: Floats
    pack: int = 1
    mat: Any = None

    @classmethod
    def of(cls, mat: Any) -> Packed:
        """What an ncnn Mat holds; it is kept alive."""
        pack = mat.elempack
        if pack == 1:
            return cls(np.asarray(mat), 1, mat)
        flat = type(mat)(mat)  # of the same memory; NumPy takes single floats only
        flat.elempack, flat.elemsize = 1, flat.elemsize // pack
        flat.w, flat.cstep = flat.w * pack, flat.cstep * pack
        return cls(np.asarray(flat), pack, mat)

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, …)."""
        first, *inner = self.laid.shape
        return (first * self.pack, *inner[:-1], inner[-1] // self.pack) if inner else (first,)

    @property
    def rows(self) -> Floats:
        """(C / n, positions, n)."""
        pack = self.pack if self.laid.ndim > 1 else 1
        return self.laid.reshape(len(self.laid), -1, pack)

    def array(self) -> Floats:
        """The values, in an array of their own."""
        return np.array(self.rows.transpose(0, 2, 1), order="C").reshape(self.shape)

    def take(self, first: int, last: int, places: npt.NDArray[np.intp]) -> Floats:
        """The channels from one to another at some positions, (channels, positions)."""
        rows = self.rows
        pack = rows.shape[2]
        begin = first // pack
        found = np.take(rows[begin : -(-last // pack)], places, axis=1, mode="clip")
        each = found.transpose(0, 2, 1).reshape(-1, len(places))
        return np.asarray(each[first - begin * pack : last - begin * pack])
