"""From notebooks to a book: `make book` and `make test` call this.

book   execute what must run again, lay out the staging tree, render it strictly, print where to open it
run    execute the notebooks only
nbval  run the executed smoke notebooks once more and compare: a test of determinism
sync   write the .ipynb of every .py, without outputs
"""

from __future__ import annotations

import argparse
import fcntl
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "workflow"))

from plan import BUILD, notebooks  # noqa: E402
from stage import lay_out  # noqa: E402

from ulm.errors import InputError  # noqa: E402
from ulm.notebooks import read  # noqa: E402
from ulm.runs import atomic_write  # noqa: E402


@contextmanager
def only_one() -> Iterator[int]:
    """Wait until no other build works here. The system frees the lock when its holders end, however they end."""
    BUILD.mkdir(exist_ok=True)
    with (BUILD / ".lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("another build works in this folder; waiting for it to end", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()


def tool(name: str) -> str:
    """A program of this environment."""
    return str(Path(sys.executable).with_name(name))


def count(cores: str) -> int:
    if cores == "all":
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not cores.isdigit() or int(cores) < 1:
        raise InputError(f"found CORES={cores}, expected `all` or a positive number")
    return int(cores)


def snakeflags() -> list[str]:
    """What the user hands to Snakemake."""
    return shlex.split(os.environ.get("SNAKEFLAGS", ""))


def dry_run() -> bool:
    return not {"-n", "--dry-run", "--dryrun"}.isdisjoint(snakeflags())


def run(profile: str, cores: str, data_root: str, device: str, lock: int) -> int:
    """Execute, through Snakemake, every notebook whose result is missing or out of date."""
    if profile not in ("smoke", "laptop", "paper"):
        raise InputError(f"found PROFILE={profile}, expected smoke, laptop or paper")
    runs = BUILD / "runs" / profile
    for report in runs.rglob("*.failed.txt"):
        report.unlink()
    number = count(cores)
    data = str(Path(data_root).resolve()) if data_root else ""
    environment = {**os.environ}
    if profile == "smoke":
        environment["TQDM_DISABLE"] = "1"  # progress bars tell of time, and smoke outputs are compared
    command = [
        *(sys.executable, "-m", "snakemake", "--snakefile", "workflow/Snakefile"),
        *("--cores", str(number), "--nolock", "--rerun-incomplete", "--keep-going"),
        *("--rerun-triggers", "params", *(() if dry_run() else ("--quiet", "all"))),
        *snakeflags(),
        *("--config", f"profile={profile}", f"threads={number}", f"device={device}", f"data_root={data}"),
    ]
    code = subprocess.run(command, env=environment, pass_fds=[lock]).returncode
    for report in sorted(runs.rglob("*.failed.txt")):
        print(f"\n{report.read_text(encoding='utf-8').rstrip()}", file=sys.stderr)
    if code:
        print("\nnot all notebooks ran; the same command goes on from here", file=sys.stderr)
    return code


def render(profile: str, base: Path) -> int:
    """Build ``BASE/html`` from the staging tree; the old book stays until the new one is whole."""
    staging = lay_out(ROOT, profile, base, os.environ.get("REPOSITORY_URL", ""))
    work = base / "sphinx"
    command = [
        *(tool("jupyter-book"), "build", str(staging), "--path-output", str(work)),
        *("-W", "-n", "--keep-going", "--all", "--quiet"),
    ]
    print("rendering the book", flush=True)
    log = base / "book.log"
    with log.open("w", encoding="utf-8") as file:
        code = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT).returncode
    if code:
        print(log.read_text(encoding="utf-8"), file=sys.stderr)
        print("the book was not built: each warning above names its page and line", file=sys.stderr)
        return code
    new, book, old = work / "_build" / "html", base / "html", base / "html.old"
    shutil.rmtree(old, ignore_errors=True)
    if book.exists():
        book.rename(old)
    new.rename(book)
    shutil.rmtree(old, ignore_errors=True)
    print(f"\nThe book ({profile} profile) is ready. Open {(book / 'index.html').as_posix()}")
    return 0


def nbval(cores: str) -> int:
    """Execute the executed smoke notebooks again, in the same folder and with the same threads, and compare.

    As many notebooks at a time as there are cores.
    """
    files = [str(BUILD / "runs" / "smoke" / f"{page}.ipynb") for page in notebooks(ROOT)]
    environment = {
        **os.environ,
        "ULM_NUMBERS": str(ROOT / BUILD / "runs" / "smoke" / "numbers-again"),
        "PYTHONPATH": str(ROOT / "workflow"),
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "TQDM_DISABLE": "1",
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }
    options = ["--nbval", "--nbval-sanitize-with", "workflow/sanitize.cfg", "-p", "compare", "--override-ini=addopts="]
    options += ["-n", str(count(cores)), "--dist", "loadfile"]
    command = [sys.executable, "-m", "pytest", "-q", *options, *files]
    return subprocess.run(command, env=environment).returncode


def sync() -> int:
    """Write the .ipynb of every .py: cells keep their ids, outputs go."""
    sources = sorted(Path("notebooks").glob("*.py"))
    for source in sources:
        content = read(source)
        content.metadata.pop("jupytext", None)
        for cell in content.cells:
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
        text = nbformat.writes(content) + "\n"
        target = source.with_suffix(".ipynb")
        if not target.is_file() or target.read_text(encoding="utf-8") != text:
            atomic_write(target, text)
            print(f"wrote {target}")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["book", "run", "nbval", "sync"])
    parser.add_argument("--profile", default="laptop")
    parser.add_argument("--cores", default="all")
    parser.add_argument("--data-root", default="")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--trial", action="store_true", help="into _build/trial; the book you read stays as it is")
    arguments = parser.parse_args()
    os.chdir(ROOT)
    if arguments.command == "sync":
        return sync()
    with only_one() as lock:
        if arguments.command == "nbval":
            return nbval(arguments.cores)
        code = run(arguments.profile, arguments.cores, arguments.data_root, arguments.device, lock)
        if code or arguments.command == "run" or dry_run():
            return code
        return render(arguments.profile, BUILD / "trial" if arguments.trial else BUILD)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except InputError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
