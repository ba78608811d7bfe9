"""Labels: matched with images by name, and read from the formats of WIDER FACE, COCO, ImageNet and LFW."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from onnxlint.errors import OnnxlintError
from onnxlint.images.lists import LINE_ENDS, read_text
from onnxlint.images.recipe import EXTENSIONS
from onnxlint.model.reading import similar_file
from onnxlint.text import counted, printable

if TYPE_CHECKING:
    from onnxlint.images.recipe import ImageSet

Array = npt.NDArray[Any]
T = TypeVar("T")

LARGEST = 1 << 29
"""Bytes of a labels file: COCO's largest has 470 MB."""

MOST_DIGITS = 18
"""Digits of a count or of a class."""

MOST_CLASSES = 100_000
"""Names in a list of classes."""

BACKGROUND = ("background", "bg", "no-object", "n/a")
"""What lists call the class that is none."""

MOST_CATEGORIES = 10**9
"""Largest id of a category."""


class ByName(Generic[T]):
    """What labels say about images, found by as many trailing parts of the path as are needed: `event/1.jpg`.

    Args:
        entries: Path as the labels have it → what they say.

    Attributes:
        by_file: Whether the file's name is enough, wherever it is: for images that were put into one folder.
    """

    def __init__(self, entries: Mapping[str, T]) -> None:
        self.by_file = False
        self._by_file: dict[str, list[tuple[tuple[str, ...], T]]] = {}
        for name, value in entries.items():
            parts = _parts(name)
            if parts:
                self._by_file.setdefault(parts[-1], []).append((parts, value))

    def get(self, path: str) -> T | None:
        """The label of an image; None if there is none, or if two entries fit equally well."""
        parts = _parts(path)
        if not parts:
            return None
        best: list[T] = []
        most = -1
        for entry, value in self._by_file.get(parts[-1], ()):
            shared = _shared(entry, parts)
            if (self.by_file or shared == min(len(entry), len(parts))) and shared >= most:
                best = [*best, value] if shared == most else [value]
                most = shared
        return best[0] if len(best) == 1 else None

    def unambiguous(self) -> bool:
        """Whether no two entries are for files of one name."""
        return all(len(entries) == 1 for entries in self._by_file.values())


def _parts(name: str) -> tuple[str, ...]:
    return tuple(part for part in PurePath(name.replace("\\", "/")).parts if part not in (".", "/", ".."))


def _shared(one: tuple[str, ...], other: tuple[str, ...]) -> int:
    count = 0
    for a, b in zip(reversed(one), reversed(other), strict=False):
        if a != b:
            break
        count += 1
    return count


class Lookup(Protocol):
    """Labels that are found by an image's path."""

    def get(self, path: str) -> object | None:
        """What they say; None for nothing."""


def match(labels: Lookup, images: ImageSet | None, path: str, example: str) -> tuple[str, ...]:
    """Check labels against the images before anything is run, and return notes for the user.

    Args:
        path: Of the labels.
        example: A name that they have.

    Raises:
        OnnxlintError: No image has a label.
    """
    if images is None:
        return ()
    if not images.paths:
        raise OnnxlintError(
            f"{printable(path)}: labels name image files, but {printable(images.source)} holds arrays;"
            " give --images a folder"
        )
    missing = [name for name in images.paths if labels.get(name) is None]
    if len(missing) == len(images.paths) and isinstance(labels, ByName) and labels.unambiguous():
        labels.by_file = len({PurePath(name).name for name in images.paths}) == len(images.paths)
        missing = [name for name in images.paths if labels.get(name) is None]
    if len(missing) == len(images.paths):
        raise OnnxlintError(
            f"{printable(path)}: none of its labels is for an image in {printable(images.source)}: it names"
            f" {printable(example)!r}, the images are like {printable(images.paths[0])!r}"
        )
    if missing:
        return (f"{len(missing)} of {len(images.paths)} images have no label: {printable(missing[0])}, …",)
    return ()


def read_lines(path: str) -> list[str]:
    """The non-empty lines of a labels file.

    Raises:
        OnnxlintError: It is missing or no text.
    """
    return [line.rstrip() for line in LINE_ENDS.split(_text(path)) if line.strip()]


def require_labels(path: str) -> None:
    """Raise OnnxlintError if there is no such file or folder."""
    if not os.path.exists(path):
        raise OnnxlintError(f"{printable(path)}: no such labels; {similar_file(path) or 'check --labels'}")


def _text(path: str) -> str:
    require_labels(path)
    return read_text(path, "a labels file", LARGEST, strict=True)


def _whole(path: str, text: str, what: str) -> int:
    """A number of a labels file.

    Raises:
        OnnxlintError: It has more digits than any count or class.
    """
    if len(text) > MOST_DIGITS:
        raise OnnxlintError(f"{printable(path)}: {what} of {counted(len(text), 'digit')} is impossible")
    return int(text)


def is_image(name: str) -> bool:
    """Whether a name ends like an image's."""
    return PurePath(name).suffix.lower() in EXTENSIONS


# ---------------------------------------------------------------- boxes


@dataclass(frozen=True)
class Boxes:
    """The truth about one image, in pixels of the original.

    Attributes:
        corners: (K, 4): x1, y1, x2, y2.
        labels: (K,): ids of the categories.
        ignored: (K,): boxes that neither have to be found nor count when they are.
    """

    corners: Array
    labels: Array
    ignored: Array


@dataclass(frozen=True)
class BoxLabels:
    """Labels for detection.

    Attributes:
        images: Path → boxes.
        categories: Id → name, in order of the ids; empty: there is one, and it has the id 0.
    """

    images: dict[str, Boxes]
    categories: dict[int, str]


def read_boxes(path: str) -> BoxLabels:
    """WIDER FACE's text format (`wider_face_val_bbx_gt.txt`) or a COCO file of instances.

    Raises:
        OnnxlintError: It is neither.
    """
    text = _text(path)
    return _read_coco(path, text) if text.lstrip()[:1] in ("{", "[") else _read_wider(path, text)


def read_class_list(path: str) -> tuple[str, ...]:
    """The names in a plain list of classes, one a line or all in one line with commas; empty if it is another file.

    Raises:
        OnnxlintError: It cannot be read, or names a class twice.
    """
    text = _text(path)
    lines = [line.strip() for line in LINE_ENDS.split(text) if line.strip()]
    if not lines or text.lstrip()[:1] in ("{", "[") or any(map(is_image, text.split())) or len(lines) > MOST_CLASSES:
        return ()
    if any(len(line.split()) >= 4 and _are_numbers(line) for line in lines):  # rows of boxes
        return ()
    names = [name.strip() for name in lines[0].split(",") if name.strip()] if len(lines) == 1 else lines
    if len(set(names)) != len(names):
        double = next(name for i, name in enumerate(names) if name in names[:i])
        raise OnnxlintError(f"{printable(path)}: names class {printable(double[:80])!r} twice")
    return tuple(names)


def _are_numbers(line: str) -> bool:
    try:
        return bool([float(word) for word in line.split()])
    except ValueError:
        return False


def without_background(path: str, names: Sequence[str], classes: int) -> tuple[str, ...]:
    """The names of a model's classes: the background, which some lists begin or end with, left out.

    Args:
        path: Of the list.
        names: As the list has them.
        classes: Of the model, the background not counted.

    Raises:
        OnnxlintError: There are more or fewer.
    """
    if len(names) == classes + 1:
        named = [name for name in (names[0], names[-1]) if name.strip("_").lower() in BACKGROUND]
        if named:
            return tuple(name for name in names if name != named[0])
    if len(names) != classes:
        raise OnnxlintError(
            f"{printable(path)}: names {counted(len(names), 'class', 'classes')}, and the model has {classes}"
        )
    return tuple(names)


def _read_wider(path: str, text: str) -> BoxLabels:
    # A path, how many boxes, then that many lines `x y w h …`; images without faces have one line of zeros, or none.
    lines = [line.strip() for line in LINE_ENDS.split(text) if line.strip()]
    images: dict[str, Boxes] = {}
    i = 0
    while i < len(lines):
        if not is_image(lines[i]) or i + 1 >= len(lines) or not lines[i + 1].isdecimal():
            raise OnnxlintError(
                f"{printable(path)}: line {printable(lines[i][:60])!r} is not WIDER FACE's format (an image's path,"
                " a line with the number of boxes, then lines x y w h …), nor is the file COCO's JSON or a list of classes"
            )
        name, count = lines[i], _whole(path, lines[i + 1], "a number of boxes")
        i += 2
        rows = []
        while i < len(lines) and not is_image(lines[i]):
            try:
                rows.append([float(word) for word in lines[i].split()])
            except ValueError:
                rows.append([])
            if len(rows[-1]) < 4 or not np.isfinite(rows[-1]).all():
                raise OnnxlintError(
                    f"{printable(path)}: a box of {printable(name)} should be x y w h …: {printable(lines[i][:60])!r}"
                )
            i += 1
        if len(rows) != count and not (count == 0 and len(rows) == 1):
            raise OnnxlintError(f"{printable(path)}: {printable(name)} should have {count} boxes and has {len(rows)}")
        # x y w h blur expression illumination invalid occlusion pose
        rows = rows[:count]
        sides = np.asarray([row[:4] for row in rows]).reshape(-1, 4)
        invalid = np.asarray([len(row) > 7 and row[7] == 1 for row in rows], bool)
        images[name] = Boxes(
            np.concatenate([sides[:, :2], sides[:, :2] + sides[:, 2:]], axis=1),
            np.zeros(len(rows), np.int64),
            invalid | (sides[:, 2:] <= 0).any(axis=1),
        )
    if not images:
        raise OnnxlintError(f"{printable(path)}: holds no labels")
    return BoxLabels(images, {})


def _read_coco(path: str, text: str) -> BoxLabels:
    try:
        data = json.loads(text)
        names = {entry["id"]: str(entry["file_name"]) for entry in data["images"]}
        categories = {int(entry["id"]): str(entry["name"]) for entry in data["categories"]}
        rows: dict[Any, list[tuple[list[float], int, bool]]] = {key: [] for key in names}
        for entry in data["annotations"]:
            box = [float(value) for value in entry["bbox"]]
            known = int(entry["category_id"])
            if (
                not isinstance(entry["bbox"], list)
                or len(box) != 4
                or not np.isfinite(box).all()
                or known not in categories
            ):
                raise ValueError(f"annotation {entry.get('id')} has no category, or no box of four numbers")
            rows[entry["image_id"]].append((box, known, bool(entry.get("iscrowd", 0))))
        if any(abs(key) > MOST_CATEGORIES for key in categories):
            raise ValueError(f"a category has an id above {MOST_CATEGORIES}")
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        why = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        why = f" ({printable(why[:100])})" if type(error) in (KeyError, ValueError) else ""
        raise OnnxlintError(
            f"{printable(path)}: is not a COCO file with images, annotations and categories{why}"
        ) from None
    images = {}
    for key, name in names.items():
        sides = np.asarray([box for box, _, _ in rows[key]]).reshape(-1, 4)
        images[name] = Boxes(
            np.concatenate([sides[:, :2], sides[:, :2] + sides[:, 2:]], axis=1),
            np.asarray([label for _, label, _ in rows[key]], np.int64),
            np.asarray([crowd for _, _, crowd in rows[key]], bool),
        )
    if not images:
        raise OnnxlintError(f"{printable(path)}: holds no labels")
    return BoxLabels(images, dict(sorted(categories.items())))


# ---------------------------------------------------------------- classes


@dataclass(frozen=True)
class ClassLabels:
    """Labels for classification.

    Attributes:
        images: Path → class, as its number in the model's outputs.
        names: Of the classes, in the model's order; empty if they are not known.
        folders: Name of a folder → class: the class of all images in it.
        complete: Whether `names` are all classes of the model, not only those that have a folder.
    """

    images: dict[str, int]
    names: tuple[str, ...] = ()
    folders: Mapping[str, int] | None = None
    complete: bool = False

    def get(self, path: str) -> int | None:
        """The class of an image by the folders that it is in, the innermost first."""
        for part in reversed(_parts(path)[:-1]):
            if self.folders is not None and part in self.folders:
                return self.folders[part]
        return None


def read_classes(path: str) -> ClassLabels:
    """A folder with a folder for each class (and perhaps a `classes.txt`); a text file with one class a line, whose
    images are in folders of these names; or lines of path and class (number or name), with a comma, tab or space between.

    Raises:
        OnnxlintError: It is none of these.
    """
    where = Path(path)
    if os.path.isdir(where):
        listed = where / "classes.txt"
        if listed.is_file():
            return _class_folders(str(listed))
        names = tuple(
            sorted(entry.name for entry in where.iterdir() if entry.is_dir() and not entry.name.startswith("."))
        )
        if not names:
            raise OnnxlintError(f"{printable(path)}: should hold a folder of images for each class")
        return ClassLabels({}, names, {name: i for i, name in enumerate(names)})
    lines = read_lines(path)
    if not lines:
        raise OnnxlintError(f"{printable(path)}: holds no labels")
    pairs = [_pair(line) for line in lines]
    if not any(is_image(name) for name, _ in pairs):
        return _class_folders(path)
    if not is_image(pairs[0][0]):
        pairs = pairs[1:]  # a header
    beside = where.parent / "classes.txt"
    names = _class_folders(str(beside)).names if beside.is_file() else ()
    numbers = {name: i for i, name in enumerate(names)}
    images = {}
    for name, label in pairs:
        if not is_image(name) or not (label.isdecimal() or label in numbers):
            hint = (
                "" if names else f"; for names of classes put {printable(str(beside))} beside it, in the model's order"
            )
            raise OnnxlintError(
                f"{printable(path)}: should have lines of path and class: {printable(f'{name} {label}'[:80])!r}{hint}"
            )
        images[name] = numbers[label] if label in numbers else _whole(path, label, "a class")
    return ClassLabels(images, names, complete=bool(names))


def _pair(line: str) -> tuple[str, str]:
    for between in ("\t", ",", " "):
        name, found, label = line.strip().rpartition(between)
        if found and is_image(name.strip().strip('"')):
            return name.strip().strip('"'), label.strip().strip('"')
    return line.strip(), ""


def _class_folders(path: str) -> ClassLabels:
    """`classes.txt`: one class a line; with a folder's name first, it is that of ImageNet's `synset_words.txt`."""
    names = tuple(line.strip() for line in read_lines(path))
    if len(set(names)) != len(names):
        double = next(name for i, name in enumerate(names) if name in names[:i])
        raise OnnxlintError(f"{printable(path)}: names class {printable(double)!r} twice")
    folders = {name: i for i, name in enumerate(names)}
    for i, name in enumerate(names):
        first, _, rest = name.partition(" ")
        if rest and re.fullmatch(r"n\d{8}", first):
            folders[first] = i
    return ClassLabels({}, names, folders, complete=True)


# ---------------------------------------------------------------- pairs


@dataclass(frozen=True)
class Pair:
    """Two images (stem of the file), whether they show the same, and the fold that they are in."""

    one: str
    other: str
    same: bool
    fold: int


def read_pairs(path: str) -> list[Pair]:
    """LFW's `pairs.txt`: a header (folds and pairs a fold, or the number of pairs), then lines of `name n m` (the same
    person) or `name n name m`.

    Raises:
        OnnxlintError: It is not of that form.
    """
    lines = read_lines(path)
    header = lines[0].split() if lines else []
    if not 1 <= len(header) <= 2 or not all(word.isdecimal() for word in header):
        raise OnnxlintError(
            f"{printable(path)}: should be LFW's pairs.txt: a first line such as '10 300', then lines"
            " 'name n m' or 'name n name m'"
        )
    per_fold = 2 * _whole(path, header[1], "a number of pairs") if len(header) == 2 else 0
    pairs = list(_pairs(path, lines[1:], per_fold))
    if not pairs:
        raise OnnxlintError(f"{printable(path)}: holds no pairs")
    return pairs


def _pairs(path: str, lines: Iterable[str], per_fold: int) -> Iterator[Pair]:
    for i, line in enumerate(lines):
        words = line.split("\t") if "\t" in line else line.split()
        numbers = [word for word in words[1:2] + words[-1:] if word.isdecimal()]
        if len(words) not in (3, 4) or len(numbers) != 2:
            raise OnnxlintError(
                f"{printable(path)}: line {i + 2} should be 'name n m' or 'name n name m': {printable(line[:60])!r}"
            )
        first, other = words[0], words[-2] if len(words) == 4 else words[0]
        yield Pair(
            f"{first}_{_whole(path, numbers[0], 'an image number'):04d}",
            f"{other}_{_whole(path, numbers[1], 'an image number'):04d}",
            len(words) == 3,
            i // per_fold if per_fold else i % 10,
        )
