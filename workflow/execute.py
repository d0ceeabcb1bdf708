"""Execute one notebook for the workflow: whole or not at all, and gone when the workflow is gone."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import threading
import time
from pathlib import Path


def follow(parent: int) -> None:
    """End this process (its kernel then ends itself) when the workflow that started it was killed."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(137)

    threading.Thread(target=watch, daemon=True).start()


def main() -> int:
    follow(os.getppid())
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("notebook")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--numbers", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("-p", dest="parameters", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    arguments = parser.parse_args()
    # Before torch is imported, here and in the kernel: the number of threads decides the last bits of a result.
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(arguments.threads)

    from ulm.errors import InputError
    from ulm.notebooks import CellFailed, duration, execute

    report = arguments.output.with_suffix(".failed.txt")
    partial = arguments.numbers.with_name(f".{arguments.numbers.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    for stale in arguments.output.parent.glob(f".{arguments.output.stem}.*.ipynb"):
        stale.unlink()  # of a run that was killed; no other one works here now
    print(f"executing {arguments.notebook}", flush=True)
    try:
        parameters = dict(arguments.parameters)
        result = execute(arguments.notebook, arguments.output, parameters, Path.cwd(), numbers=partial, progress=False)
    except (InputError, CellFailed) as error:
        report.write_text(f"{error}\n", encoding="utf-8")
        print(error, file=sys.stderr)
        return 1
    shutil.rmtree(arguments.numbers, ignore_errors=True)
    os.replace(partial, arguments.numbers)
    report.unlink(missing_ok=True)
    print(f"executed {arguments.notebook} in {duration(result.metadata.ulm.provenance.seconds)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
