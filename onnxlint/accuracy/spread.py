"""Models run on inputs by the tasks of a cluster.

What they give is summed up where the comparison was started, in the order of the inputs: the sums are those of one machine,
whatever the number of workers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from onnxlint.accuracy.inputs import Feeds, renamed_feeds
from onnxlint.backends import Array, Session, backend_for
from onnxlint.errors import OnnxlintError
from onnxlint.lint.cluster import enter
from onnxlint.lint.engines import Spread, kept, new_token
from onnxlint.model.limits import set_budget
from onnxlint.text import printable


@dataclass(frozen=True)
class Models:
    """The models that a task runs.

    Attributes:
        folder: What their paths are relative to.
        paths: Their first files.
        threads: How many each uses: the number may change the last digit of a sum.
        bytes: Size of all files of the comparison, which limits the time of a run.
        token: Names the comparison.
    """

    folder: str
    paths: tuple[str, ...]
    threads: int
    bytes: int
    token: str = field(default_factory=new_token)

    def sessions(self) -> Sequence[Session]:
        """The models, loaded once in a process."""
        return kept(self.token, self._load)

    def _load(self) -> list[Session]:
        enter(self.folder, self.paths)
        set_budget(self.bytes)
        return [backend_for(path).open(path, self.threads) for path in self.paths]


def _run(models: Models, feeds: Mapping[str, Array]) -> list[list[Array]]:
    pairs = zip(models.paths, models.sessions(), strict=True)
    return [list(session.run(renamed_feeds(feeds, session, path))) for path, session in pairs]


def outputs(
    spread: Spread, models: Models, inputs: Iterable[tuple[str, Feeds]]
) -> Iterator[tuple[str, Feeds, Iterator[Sequence[Array]]]]:
    """Name and arrays of each input, and the outputs of each model on it, in the order of the inputs.

    Raises:
        OnnxlintError: A model cannot be loaded or run.
    """
    sent: deque[tuple[str, Feeds]] = deque()

    def jobs() -> Iterator[tuple[Feeds]]:
        for name, feeds in inputs:
            sent.append((name, feeds))
            yield (feeds,)

    for made in spread.each(_run, jobs(), models):
        name, feeds = sent.popleft()
        if made is None:
            what = ", ".join(map(printable, models.paths))
            raise OnnxlintError(f"{printable(name)}: running {what} on it ended its process again and again")
        yield name, feeds, iter(made)
