"""What checking a store of models costs: throughput, efficiency, bytes read, memory; with and without results of before.

    python benchmarks/scale.py [--models 2000] [--runs 3] [--ray] [--markdown docs/scale.md] [--assert]
    python benchmarks/scale.py --processes 1,2,4,8,16 [--models 2000] [--runs 3] [--markdown docs/scale.md]

Generates detectors of different sizes (no two are equal), and checks them as whole processes: with 1 and 2 workers, twice
with a cache, from an S3 server on loopback, and, with `--ray`, on local Ray clusters of one node and of two. CPU is that of
the process and of all that it started. Where ../shared/data is there, a batch of RetinaFace exports is checked, too.
`--markdown` writes the page with the figures in it; `--assert` fails where a bar is missed. `--processes` measures files
alone, with as many processes each: for a machine of many cores.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import logging
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
FEW = 10
"""Part of the models whose memory is compared with that of all of them."""

CORE_HOUR = 0.05
"""Dollars for a core and an hour: about what clouds ask for on-demand machines in 2026; set your own."""

GETS = 0.40
"""Dollars for a million GET requests of S3's standard class."""

RETINAFACE = ROOT.parent / "shared" / "data" / "retinaface" / "original_op11_dyn.onnx"
BATCH = 300
"""RetinaFace exports that are checked together."""

BUSY = 0.5
"""Load average before the measurement from which on other work is said to have taken part of the machine."""

WHOLE = ("one", "two", "first", "second", "ray", "ray one")
BEGIN, END = "<!-- figures -->", "<!-- /figures -->"
CORES_BEGIN, CORES_END = "<!-- cores -->", "<!-- /cores -->"

STORED = 100
"""Models in the object store: moto's server holds them in memory and is slow."""


@dataclass(frozen=True)
class Cost:
    """What a process took.

    Attributes:
        wall: Seconds.
        cpu: Seconds of user and system time, its children included.
        peak: Peak memory of the largest of its processes, in MB.
        lines: Models that it told of.
    """

    wall: float
    cpu: float
    peak: float
    lines: int


def build(path: Path, number: int) -> None:
    """A detector of 100 to 300 nodes with the usual pitfalls, and weights of about half a megabyte."""
    random = np.random.default_rng(number)
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []

    def add(op: str, inputs: list[str], name: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(op, inputs, [f"{name}_out"], f"/{name.replace('.', '/')}/{op}", **attributes))
        return f"{name}_out"

    def constant(name: str, values: np.ndarray) -> str:
        weights.append(numpy_helper.from_array(values, name))
        return name

    def conv(value: str, name: str, have: int, want: int, stride: int) -> str:
        weight = constant(f"{name}.weight", random.standard_normal((want, have, 3, 3)).astype("f4"))
        bias = constant(f"{name}.bias", random.standard_normal(want).astype("f4"))
        value = add("Conv", [value, weight, bias], name, kernel_shape=[3, 3], pads=[1] * 4, strides=[stride] * 2)
        return add("LeakyRelu", [value], f"{name}.act", alpha=0.1)

    width = int(random.integers(8, 24))
    value, maps = conv("image", "stem", 3, width, 2), []
    for level in range(3):
        value = conv(value, f"stage{level}.down", width, width, 2)
        for block in range(int(random.integers(6, 18))):
            inner = conv(value, f"stage{level}.block{block}", width, width, 1)
            value = add("Add", [value, inner], f"stage{level}.join{block}")
        maps.append(value)
    top = maps[-1]
    for level in (1, 0):
        shape = add("Shape", [maps[level]], f"fpn.shape{level}")
        sizes = add(
            "Slice",
            [shape, constant(f"start{level}", np.array([2])), constant(f"end{level}", np.array([4]))],
            f"fpn.slice{level}",
        )
        head = add(
            "Slice",
            [
                add("Shape", [top], f"fpn.own{level}"),
                constant(f"zero{level}", np.array([0])),
                constant(f"two{level}", np.array([2])),
            ],
            f"fpn.head{level}",
        )
        size = add("Concat", [head, sizes], f"fpn.size{level}", axis=0)
        resized = add("Resize", [top, "", "", size], f"fpn.resize{level}", mode="nearest")
        top = conv(add("Add", [resized, maps[level]], f"fpn.sum{level}"), f"fpn.merge{level}", width, width, 1)
        maps[level] = top
    outputs = []
    for name, count in (("boxes", 4), ("scores", 2)):
        parts = []
        for level, found in enumerate(maps):
            here = add(
                "Transpose",
                [conv(found, f"{name}{level}", width, 2 * count, 1)],
                f"{name}{level}.move",
                perm=[0, 2, 3, 1],
            )
            batch = add(
                "Gather",
                [add("Shape", [here], f"{name}{level}.shape"), constant(f"{name}{level}.first", np.array([0]))],
                f"{name}{level}.batch",
                axis=0,
            )
            target = add(
                "Concat",
                [batch, constant(f"{name}{level}.rest", np.array([-1, count]))],
                f"{name}{level}.target",
                axis=0,
            )
            parts.append(add("Reshape", [here, target], f"{name}{level}.flat"))
        joined = add("Concat", parts, name, axis=1)
        outputs.append(add("Softmax", [joined], f"{name}.soft", axis=2) if name == "scores" else joined)
    graph = helper.make_graph(
        nodes,
        f"detector{number}",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, "height", "width"])],
        [helper.make_tensor_value_info(one, TensorProto.FLOAT, None) for one in outputs],
        weights,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)


LAUNCH = """
import os, resource, sys, time
started = time.perf_counter()
flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
to_file = [(os.POSIX_SPAWN_OPEN, 1, sys.argv[1], flags, 0o600)]
pid = os.posix_spawn(sys.argv[2], sys.argv[2:], os.environ, file_actions=to_file)
status, usage = os.wait4(pid, 0)[1:]
wall, cpu = time.perf_counter() - started, usage.ru_utime + usage.ru_stime
print(wall, cpu, usage.ru_maxrss / 1024, os.waitstatus_to_exitcode(status))
"""
"""A small parent for what is measured: a child's peak memory begins with that of the process that started it."""


def check(folder: Path, *words: str, **environment: str) -> Cost:
    """Check models as a whole process."""
    out = folder / "report.jsonl"
    plain = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [
        sys.executable,
        "-m",
        "onnxlint",
        "check",
        "--isolated",
        "-q",
        "--exit-zero",
        "--format",
        "jsonl",
        *words,
    ]
    told = subprocess.run(
        [sys.executable, "-I", "-S", "-c", LAUNCH, str(out), *command],
        env={**plain, **environment},
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    wall, cpu, peak, code = told.stdout.split()
    if code != "0":
        raise SystemExit(f"{' '.join(command)}: exit code {code}: {told.stderr}")
    with open(out, "rb") as lines:
        return Cost(float(wall), float(cpu), float(peak), sum(1 for _ in lines))


def best(runs: int, folder: Path, *words: str, **environment: str) -> Cost:
    """The run that took the least CPU: what others do on the machine only adds to it."""
    return min((check(folder, *words, **environment) for _ in range(runs)), key=lambda cost: cost.cpu)


@contextlib.contextmanager
def object_store(models: list[Path]) -> Iterator[str]:
    """An S3 server on loopback (moto's) that holds models; yields the address of their folder."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server.start()
    host, port = server.get_host_and_port()
    settings = {"AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"}
    os.environ.update(settings, AWS_DEFAULT_REGION="us-east-1")
    client = boto3.client("s3")
    client.create_bucket(Bucket="models")
    for path in models:
        client.upload_file(str(path), "models", f"store/{path.name}")
    try:
        yield "s3://models/store/"
    finally:
        server.stop()


def read_of(url: str) -> tuple[int, int, int]:
    """(bytes of a remote model, bytes fetched to open it, requests for them)."""
    from onnxlint.model.skeleton import open_model
    from onnxlint.store.ranges import RemoteBytes

    model = open_model(url, remote=True)
    assert isinstance(model.buffer, RemoteBytes)
    return model.size, model.buffer.fetched, model.buffer.requests


@contextlib.contextmanager
def cluster(nodes: int) -> Iterator[str]:
    """A Ray cluster on this machine with one core a node; yields its address."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    started = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    for _ in range(nodes - 1):
        started.add_node(num_cpus=1)
    try:
        yield started.address
    finally:
        started.shutdown()  # type: ignore[no-untyped-call]  # ray has no types for it


def generate(folder: Path, count: int) -> list[Path]:
    """Write so many different models into a new folder."""
    folder.mkdir()
    paths = [folder / f"m{number:05}.onnx" for number in range(count)]
    for number, path in enumerate(paths):
        build(path, number)
    return paths


def cores(options: argparse.Namespace, folder: Path) -> str:
    """A table of checking the same models with more and more processes."""
    load = os.getloadavg()[0]
    models = folder / "models"
    generate(models, options.models)
    costs = {
        count: min(
            (check(folder, str(models), "-j", str(count)) for _ in range(options.runs)), key=lambda cost: cost.wall
        )
        for count in options.processes
    }
    few, one = next(iter(costs.items()))
    lines = [
        f"{options.models:,} models like those above, the fastest of {options.runs} runs each, {datetime.date.today()}, "
        f"Python {platform.python_version()}, onnx {onnx.__version__}, {platform.machine()}, {os.cpu_count()} cores"
        f"{_shared(load)}. Made by",
        f"`python benchmarks/scale.py {' '.join(sys.argv[1:])}`.",
        "",
        "| processes | wall s | models/s | efficiency | CPU s | peak MB of the largest |",
        "| ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for count, cost in costs.items():
        if cost.lines != options.models:
            raise SystemExit(f"{count} processes: {cost.lines} of {options.models} models were told of")
        gain = one.wall * few / cost.wall / count
        speed = options.models / cost.wall
        lines.append(f"| {count} | {cost.wall:.2f} | {speed:.0f} | {gain:.2f} | {cost.cpu:.1f} | {cost.peak:.0f} |")
    return "\n".join((*lines, ""))


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All figures, by name."""
    load = os.getloadavg()[0]
    models = folder / "models"
    few = folder / "few"
    few.mkdir()
    paths = generate(models, options.models)
    for path in paths[: max(1, options.models // FEW)]:
        (few / path.name).symlink_to(path)
    found: dict[str, Any] = {
        "load": load,
        "models": options.models,
        "bytes": sum(path.stat().st_size for path in paths),
    }
    found["nodes"] = sum(len(onnx.load(path).graph.node) for path in paths[:: max(1, len(paths) // 50)]) / len(
        paths[:: max(1, len(paths) // 50)]
    )
    found["start"] = best(options.runs, folder, str(paths[0]))
    found["few"] = best(1, folder, str(few), "-j", "1")
    found["one"] = best(options.runs, folder, str(models), "-j", "1")
    found["two"] = best(options.runs, folder, str(models), "-j", "2")
    cache = str(folder / "cache")
    found["first"] = check(folder, str(models), "-j", "1", "--cache-dir", cache)
    found["second"] = best(options.runs, folder, str(models), "-j", "1", "--cache-dir", cache)
    if RETINAFACE.exists():
        found["retinaface"] = retinaface(options.runs, folder)
    if options.ray:
        for name, nodes in (("ray one", 1), ("ray", 2)):
            with cluster(nodes) as address:
                # Ray's processes are not children of what is measured: only wall time tells.
                found[name] = best(1, folder, str(models), "--engine", "ray", RAY_ADDRESS=address)
    from tests.support.large import save_large

    large = save_large(folder / "large.onnx", 100, 5 << 20)
    from tests.support.servers import Site, serving

    with serving(Site({"/large.onnx": large})) as site:
        found["large"] = read_of(f"{site.url}/large.onnx")
    with object_store(paths[:STORED]) as address:
        found["stored"] = [read_of(f"{address}{path.name}") for path in paths[:STORED]]
        found["store"] = best(1, folder, address, "-j", "1")
        found["local"] = best(1, folder, *map(str, paths[:STORED]), "-j", "1")
        store = str(folder / "store-cache")
        found["store first"] = check(folder, address, "-j", "1", "--cache-dir", store)
        found["store second"] = check(folder, address, "-j", "1", "--cache-dir", store)
    return found


def retinaface(runs: int, folder: Path) -> float:
    """Milliseconds of CPU that each of many RetinaFace exports takes, start-up left out."""
    batch = folder / "retinaface"
    batch.mkdir()
    for i in range(BATCH):
        (batch / f"m{i:03}.onnx").symlink_to(RETINAFACE)
    all_of_them = best(runs, folder, str(batch), "-j", "1")
    return 1000 * (all_of_them.cpu - best(runs, folder, str(batch / "m000.onnx")).cpu) / (BATCH - 1)


def page(found: dict[str, Any]) -> str:
    """The tables, and what they say of a million models."""
    import ray

    count = found["models"]
    one, two, first, second, start = (found[name] for name in ("one", "two", "first", "second", "start"))
    each = (one.cpu - start.cpu) / (count - 1)
    rows = [("1 process", one), ("2 processes", two)]
    if "ray" in found:
        rows += [("Ray, 1 node of 1 core", found["ray one"]), ("Ray, 2 nodes of 1 core", found["ray"])]
    rows += [("1 process, filling the cache", first), ("1 process, all from the cache", second)]
    lines = ["| | wall s | models/s | CPU s | CPU ms a model | peak MB |", "| --- | ---: | ---: | ---: | ---: | ---: |"]
    for name, cost in rows:
        outside = name.startswith("Ray")
        cpu = "in its own processes" if outside else f"{cost.cpu:.1f}"
        part = "" if outside else f"{1000 * (cost.cpu - start.cpu) / (count - 1):.2f}"
        lines.append(f"| {name} | {cost.wall:.1f} | {count / cost.wall:.0f} | {cpu} | {part} | {cost.peak:.0f} |")
    sizes, fetched, requests = (sum(column) for column in zip(*found["stored"], strict=True))
    size, read, asked = found["large"]
    store, local = found["store"], found["local"]
    remote = (store.cpu - local.cpu) / len(found["stored"])
    million = 1_000_000
    hours = million * each / 3600
    far = million * (each + remote) / 3600
    gets = million * (2 + millionth(found))
    today = datetime.date.today()
    versions = f"Python {platform.python_version()}, onnx {onnx.__version__}, Ray {ray.__version__}"
    kept = (second.cpu - start.cpu) / (count - 1) * million / 3600
    by_cpu, by_wall = 100 * second.cpu / first.cpu, 100 * second.wall / first.wall
    share = f"{by_cpu:.1f} % of the first's CPU, and {by_wall:.1f} % of its time"
    grows = 1000 * (one.peak - found["few"].peak) / (count - count // FEW)
    again = 100 * found["store second"].wall / found["store first"].wall
    return "\n".join(
        (
            f"{count:,} generated detectors, {found['nodes']:.0f} nodes and {found['bytes'] / count / 1e6:.2f} MB on "
            f"average, no two equal; whole processes, {today}, {versions}, {platform.machine()}, "
            f"{os.cpu_count()} cores{_shared(found['load'])}. Starting takes {start.cpu:.2f} s of CPU. Made by",
            f"`python benchmarks/scale.py {' '.join(sys.argv[1:])}`.",
            "",
            *lines,
            "",
            f"- **Efficiency of 2 processes**: {one.cpu / two.cpu:.2f} by CPU (what one takes against what two take "
            f"together), {one.wall / 2 / two.wall:.2f} by wall time{_of_ray(found)}.",
            *_of_retinaface(found),
            f"- **Cache**: the second run over an unchanged store takes {share}.",
            f"- **Memory**: {found['few'].peak:.0f} MB for {max(1, count // FEW):,} models, {one.peak:.0f} MB "
            f"for {count:,}: "
            f"{grows:.1f} KB for each further model.",
            f"- **Bytes**: of {len(found['stored'])} of these models in an S3 store, {100 * fetched / sizes:.0f} % in "
            f"{requests / len(found['stored']):.1f} requests each (files of up to 4 MB are read whole); of a "
            f"model of {size / 1e6:.0f} MB with 100 tensors, {100 * read / size:.2f} % in {asked} requests.",
            f"- **A store** costs {1000 * remote:.0f} ms of CPU a model more than files do (the client "
            f"library); a second run "
            f"that takes all results from the cache takes {again:.0f} % of the first's time, its start included.",
            "",
            f"What a million models like these cost, at {CORE_HOUR:.2f} $ for a core and an hour and {GETS:.2f} "
            f"$ for a million "
            "requests:",
            "",
            "| | CPU hours | requests | $ |",
            "| --- | ---: | ---: | ---: |",
            f"| files, first run | {hours:.1f} | | {hours * CORE_HOUR:.2f} |",
            f"| a store, first run | {far:.1f} | {gets / 1e6:.1f} million | "
            f"{far * CORE_HOUR + gets / 1e6 * GETS:.2f} |",
            f"| files, unchanged, from the cache | {kept:.2f} | | {kept * CORE_HOUR:.3f} |",
            "",
        )
    )


def _shared(load: float) -> str:
    if load < BUSY:
        return ", idle otherwise"
    more = "CPU compares, and is more than on an idle machine; wall time says little"
    return f" with a load of {load:.0f} by other work: {more}"


def _of_ray(found: dict[str, Any]) -> str:
    return f"; of 2 nodes of Ray, {found['ray one'].wall / 2 / found['ray'].wall:.2f}" if "ray" in found else ""


def _of_retinaface(found: dict[str, Any]) -> list[str]:
    if "retinaface" not in found:
        return []
    return [f"- **RetinaFace**: each of {BATCH} exports with 225 nodes takes {found['retinaface']:.1f} ms of CPU."]


def millionth(found: dict[str, Any]) -> float:
    """Range requests of a model in the store, beyond the first and the one for its size."""
    stored: list[tuple[Any, Any, int]] = found["stored"]
    return sum(requests for _, _, requests in stored) / len(stored) - 1


def missed(found: dict[str, Any]) -> Iterator[str]:
    """Bars that the figures miss."""
    count = found["models"]
    each = 1000 * (found["one"].cpu - found["start"].cpu) / (count - 1)
    size, read, _ = found["large"]
    told = {name: cost.lines for name, cost in found.items() if isinstance(cost, Cost) and name in WHOLE}
    for holds, what in (
        (
            found["second"].cpu <= 0.05 * found["first"].cpu or count < 500,
            "a second run takes more than 5 % of the first",
        ),
        (read <= 0.01 * size, "more than 1 % of a large model is read"),
        (found["one"].cpu >= 0.85 * found["two"].cpu, "two processes waste more than 15 %"),
        (found["one"].peak - found["few"].peak <= 0.02 * count, "memory grows by more than 20 KB a model"),
        (set(told.values()) == {count}, f"models are missing: {told}"),
        (each < 50, f"a model takes {each:.1f} ms"),
    ):
        if not holds:
            yield what


def show(text: str, page: Path | None, begin: str, end: str) -> None:
    """Print figures, and write them between the marks of a page."""
    print(text)
    if page is not None:
        before, _, rest = page.read_text(encoding="utf-8").partition(begin)
        _, _, after = rest.partition(end)
        page.write_text(f"{before}{begin}\n{text}{end}{after}", encoding="utf-8")


def main() -> int:
    """Measure, print and write the page; returns 1 where a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=2000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--ray", action="store_true", help="also on a Ray cluster of two nodes on this machine")
    parser.add_argument("--markdown", type=Path, help="write the figures into this page")
    parser.add_argument("--assert", action="store_true", dest="bars", help="fail where a bar is missed")
    parser.add_argument(
        "--processes",
        type=lambda text: [int(part) for part in text.split(",")],
        help="measure files alone, with as many processes each: 1,2,4",
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        if options.processes:
            show(cores(options, Path(name)), options.markdown, CORES_BEGIN, CORES_END)
            return 0
        found = measure(options, Path(name))
    show(page(found), options.markdown, BEGIN, END)
    problems = list(missed(found))
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if options.bars and problems else 0


if __name__ == "__main__":
    sys.exit(main())
