"""The papers' data sets, read from their official layout on disk.

:data:`SOURCES` lists them. It is collected from the tuples ``SOURCES`` of the modules ``catalogue_*`` in this package,
which hold words only; a loader's module is imported when it is first used.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module

from ulm.datasets.real.base import Problem, Source

__all__ = ["SOURCES", "Problem", "Source"]


def _collect() -> dict[str, Source]:
    names = sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name.startswith("catalogue_"))
    sources = [source for name in names for source in import_module(f"{__name__}.{name}").SOURCES]
    return {source.name: source for source in sources}


SOURCES: dict[str, Source] = _collect()
"""Every data set of the papers by its name in a specification, such as ``mafl``."""
