"""What holds for every test: how Hypothesis searches, and that CI takes a skipped test for a failed one."""

from __future__ import annotations

import functools
import os
import signal
from collections.abc import Generator
from pathlib import Path

import hypothesis
import pytest

hypothesis.settings.register_profile(
    "ci",
    derandomize=True,
    deadline=None,
    print_blob=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.register_profile("dev", deadline=None)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))

_FAIL_ON_SKIP = os.environ.get("SKERRY_FAIL_ON_SKIP", "") == "1"


def pytest_configure() -> None:
    """Let Ctrl-C reach what the tests start, also where a shell runs them in its background and ignores it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Leave out what needs a real container engine where there is none; CI has one."""
    if item.get_closest_marker("podman") is not None:
        from skerry.testing.podman import can_run_podman

        if not can_run_podman():
            pytest.skip("needs root and the programs podman, runc, conmon, iptables and /bin/busybox")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse a test whose file does not name its marker: scripts/check_tests.py would not look there for it."""
    for item in items:
        for marker in ("e2e", "podman", "netns"):
            if item.get_closest_marker(marker) is not None and f"mark.{marker}" not in _text_of(item.path):
                raise pytest.UsageError(
                    f"{item.nodeid} has the marker {marker}, which {item.path} does not name"
                )


@functools.cache
def _text_of(file: Path) -> str:
    return file.read_text()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skip into a failure where everything a test needs is promised to be there."""
    report = yield
    if _FAIL_ON_SKIP and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, and SKERRY_FAIL_ON_SKIP=1: {report.longrepr}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Do the same for a module that skips itself."""
    report = yield
    if _FAIL_ON_SKIP and report.skipped:
        report.outcome = "failed"
        report.longrepr = f"{collector.nodeid} was skipped, and SKERRY_FAIL_ON_SKIP=1: {report.longrepr}"
    return report
