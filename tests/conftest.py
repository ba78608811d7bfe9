"""What all tests share."""

from __future__ import annotations

import importlib
import os
import pkgutil
import signal
from collections.abc import Iterator
from typing import Any

import onnx.parser
import onnxlint_rules
import pytest
from hypothesis import settings

import onnxlint
from tests.support import old_parser
from tests.support.old_versions import have, too_old

# The same examples on every run, however slow the machine; HYPOTHESIS_PROFILE=random looks for new ones.
settings.register_profile("same", deadline=None, derandomize=True)
settings.register_profile("random", deadline=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))

# A shell ignores ctrl-c in what it runs in the background, and children inherit that: the tests send it to theirs.
signal.signal(signal.SIGINT, signal.default_int_handler)

if have("onnx") < old_parser.FIRST_WITH_QUOTED_SIZES:
    onnx.parser.parse_model = old_parser.parse_model


REPEATED = {"attacks", "test_against_sympy.py", "test_odd_models.py"}
"""Folders and modules that run the same lines on very many models."""


@pytest.hookimpl(trylast=True)  # after Hypothesis has marked its tests
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what older packages cannot run; measure no coverage in tests that repeat the same lines, which would take several
    times as long."""
    if config.pluginmanager.hasplugin("_cov"):
        # What runs when a module is imported is measured, even if a test without coverage would be the first to import it.
        for package in (onnxlint, onnxlint_rules):
            for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
                if not module.name.endswith("__main__"):
                    importlib.import_module(module.name)
    for item in items:
        if item.get_closest_marker("hypothesis") or not REPEATED.isdisjoint(item.path.parts):
            item.add_marker(pytest.mark.no_cover)
        if why := too_old(item.nodeid.removeprefix("tests/")):
            item.add_marker(pytest.mark.skip(reason=why))


@pytest.fixture(scope="module")
def cluster(two_nodes: Any) -> Any:
    """A Ray cluster of two nodes."""
    return two_nodes


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[Any]:
    """A Ray cluster of two nodes with one core each."""
    pytest.importorskip("ray", reason="needs onnxlint[ray]")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_agent_register_timeout_ms", "300000")  # on a busy machine its agents start slowly
    from ray.cluster_utils import Cluster

    for left in (2, 1, 0):
        try:
            started = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
            started.add_node(num_cpus=1)
            break
        except Exception as error:  # on a busy machine a node takes longer than the 30 s that Ray waits
            if "timed out during startup" not in str(error) or not left:
                raise
    yield started
    started.shutdown()  # type: ignore[no-untyped-call]  # ray has no types for it
