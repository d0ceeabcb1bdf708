"""A pytest plugin for nbval: notebooks run at the root of the checkout, and warnings are not compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from nbval import plugin
from nbval.kernel import RunningKernel

ROOT = Path(__file__).resolve().parents[1]


class RootKernel(RunningKernel):
    """A kernel in the same working directory as papermill's."""

    def __init__(self, kernel_name: str, cwd: str, **options: Any):
        super().__init__(kernel_name, cwd=str(ROOT), **options)


def pytest_configure(config: pytest.Config) -> None:
    plugin.RunningKernel = RootKernel


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.parent.skip_compare = (*item.parent.skip_compare, "stderr")
        item.output_timeout = 60
