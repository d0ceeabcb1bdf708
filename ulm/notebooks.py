"""Notebooks as functions: which parameters one takes, and executing it with others (papermill)."""

from __future__ import annotations

import ast
import difflib
import io
import os
import re
import sys
import time
import tokenize
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ulm.errors import InputError

if TYPE_CHECKING:
    from nbformat import NotebookNode

_SIMPLE = {"int": int, "float": float, "bool": bool, "str": str}
_TRUTH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class UnknownParameter(InputError):
    """A parameter that the notebook does not have; the message lists those that it has."""


class CellFailed(RuntimeError):
    """A cell raised; the message names the notebook, the cell and its source, and ends with the traceback's tail."""


@dataclass(frozen=True)
class Parameter:
    """One line of a notebook's parameters cell: ``name: kind = default  # help``."""

    name: str
    kind: str
    default: Any
    help: str = ""


def checkout() -> Path:
    """The folder of the book's checkout that ``ulm`` is imported from.

    Raises:
        InputError: ``ulm`` is installed without the book.
    """
    root = Path(__file__).resolve().parents[1]
    if not (root / "_toc.yml").is_file():
        raise InputError(f"found no book beside {root.name}/ulm; run this from a checkout, installed with `make` or -e")
    return root


def find(notebook: str | Path, root: Path | None = None) -> Path:
    """The source (.py, else .ipynb) of a notebook: ``imm_faces``, ``imm-faces``, ``notebooks/imm_faces`` or its file.

    Raises:
        InputError: There is none; the message lists those that exist.
    """
    root = root or checkout()
    path = Path(notebook)
    stem = path.with_suffix("") if path.suffix in {".py", ".ipynb"} else path
    plain = stem.name.replace("-", "_")
    for base in (stem, root / stem, root / "notebooks" / stem, root / "notebooks" / plain):
        for suffix in (".py", ".ipynb"):
            file = Path(f"{base}{suffix}")
            if file.is_file():
                return file
    known = ", ".join(sorted(file.stem for file in (root / "notebooks").glob("*.py")))
    raise InputError(f"found no notebook {str(notebook)!r}, expected a file or one of: {known}")


def read(notebook: str | Path) -> NotebookNode:
    """The notebook as nbformat 4. A .py is the source; the cell ids are those of the .ipynb beside it."""
    import jupytext
    import nbformat
    from jupytext.combine import combine_inputs_with_outputs

    source = Path(notebook)
    if source.suffix == ".ipynb":
        return nbformat.read(source, as_version=4)
    content = jupytext.read(source)
    pair = source.with_suffix(".ipynb")
    if pair.is_file():
        content = combine_inputs_with_outputs(content, nbformat.read(pair, as_version=4), fmt="py:percent")
    return content


def parameters_of(notebook: str | Path | NotebookNode) -> dict[str, Parameter]:
    """The parameters of a notebook by name, in order: the assignments in its cell tagged ``parameters``.

    Raises:
        InputError: The cell holds something other than one literal assignment a line.
    """
    content = read(notebook) if isinstance(notebook, str | Path) else notebook
    sources = [cell.source for cell in content.cells if "parameters" in cell.metadata.get("tags", [])]
    return {parameter.name: parameter for source in sources for parameter in _parse(source)}


def _parse(source: str) -> Iterator[Parameter]:
    comments = {
        token.start[0]: token.string.lstrip("# ").rstrip()
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    for statement in ast.parse(source).body:
        kind, target, value = "", None, None
        if isinstance(statement, ast.AnnAssign):
            kind, target, value = ast.unparse(statement.annotation), statement.target, statement.value
        elif isinstance(statement, ast.Assign) and len(statement.targets) == 1:
            target, value = statement.targets[0], statement.value
        try:
            default = ast.literal_eval(value) if value is not None else None
        except ValueError:
            target = None
            default = None
        if not isinstance(target, ast.Name):
            raise InputError(
                f"found {ast.unparse(statement)!r} in a parameters cell, expected `name: type = literal  # help`"
            )
        yield Parameter(target.id, kind or type(default).__name__, default, comments.get(statement.lineno, ""))


def convert(given: Mapping[str, Any], known: Mapping[str, Parameter], name: str = "the notebook") -> dict[str, Any]:
    """Check names and turn text (from a command line) into the type that the parameters cell declares.

    Raises:
        UnknownParameter: A name that the notebook does not have.
        InputError: A value that does not fit the declared type.
    """
    for key in given:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            listing = ", ".join(f"{p.name}: {p.kind}" for p in known.values()) or "none"
            raise UnknownParameter(f"found the parameter {key!r}, but {name} has: {listing}{hint}")
    return {key: _convert(known[key], value) for key, value in given.items()}


def _convert(parameter: Parameter, value: Any) -> Any:
    kinds = [part.strip() for part in parameter.kind.split("|")]
    if not isinstance(value, str):
        accepted = [_SIMPLE[kind] for kind in kinds if kind in _SIMPLE]
        fits = not accepted or type(value) in accepted or (type(value) is int and float in accepted)
        if fits or (value is None and "None" in kinds):
            return value
    elif "None" in kinds and value.lower() in {"none", ""}:
        return None
    else:
        for kind in kinds:
            try:
                if kind == "bool":
                    return _TRUTH[value.lower()]
                return _SIMPLE[kind](value) if kind in _SIMPLE else ast.literal_eval(value)
            except (ValueError, KeyError, SyntaxError):
                continue
    raise InputError(f"found {parameter.name}={value!r}, expected {parameter.kind}, such as {parameter.default!r}")


def execute(
    notebook: str | Path,
    output: str | Path,
    parameters: Mapping[str, Any] | None = None,
    root: str | Path | None = None,
    *,
    numbers: str | Path | None = None,
    progress: bool = True,
) -> NotebookNode:
    """Execute a notebook in a fresh kernel at the root of the checkout and write the executed copy.

    The copy is written under a temporary name and renamed, so it is whole or absent; what a failed notebook got to
    stays beside it as ``NAME.failed.ipynb``. The injected parameters are folded (tag ``hide-input``), and a last cell
    says where the results come from and how to make them again.

    Args:
        notebook: Name or file, see :func:`find`.
        output: The .ipynb to write.
        parameters: By name; text is converted to the declared type.
        root: The checkout; the kernel's working directory.
        numbers: Folder for measured numbers, handed to the notebook as ``ULM_NUMBERS``; by default
            ``NAME-numbers`` beside the output.
        progress: Show a progress bar of cells.

    Returns:
        The executed notebook.

    Raises:
        UnknownParameter: A parameter that the notebook does not have.
        InputError: No such notebook, or a value of the wrong type.
        CellFailed: A cell raised.
    """
    import nbformat

    folder = Path(root).resolve() if root else checkout()
    source, target = find(notebook, folder), Path(output).resolve()
    content = read(source)
    values = convert(parameters or {}, parameters_of(content), source.name)
    numbers_folder = Path(numbers).resolve() if numbers else target.with_name(f"{target.stem}-numbers")
    numbers_folder.mkdir(parents=True, exist_ok=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.stem}.{os.getpid()}.ipynb")
    failed = target.with_name(f"{target.stem}.failed.ipynb")
    start = time.perf_counter()
    try:
        nbformat.write(content, partial)
        with _environment(ULM_NUMBERS=str(numbers_folder), PYDEVD_DISABLE_FILE_VALIDATION="1"):
            result = _papermill(source.stem, partial, values, folder, progress, failed)
        _tidy(result, source, target, folder)
        _stamp(result, source, {**_defaults(content), **values}, time.perf_counter() - start)
        nbformat.write(result, partial)
        os.replace(partial, target)
        failed.unlink(missing_ok=True)
    finally:
        partial.unlink(missing_ok=True)
    return result


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    before = {key: os.environ.get(key) for key in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value


def _papermill(
    name: str, partial: Path, values: Mapping[str, Any], root: Path, progress: bool, failed: Path
) -> NotebookNode:
    import papermill
    from papermill.exceptions import PapermillExecutionError

    try:
        return papermill.execute_notebook(
            str(partial),
            str(partial),
            parameters=dict(values),
            cwd=str(root),
            kernel_name="python3",
            language="python",
            progress_bar={"desc": name} if progress else False,
            log_output=False,
            extra_arguments=["--IPKernelApp.log_level=CRITICAL"],
        )
    except PapermillExecutionError as error:
        os.replace(partial, failed)
        tail = _COLOUR.sub("", "\n".join(error.traceback)).strip().splitlines()[-30:]
        raise CellFailed(
            f"notebook {name}, cell {error.cell_index + 1} (In [{error.exec_count}]) failed: "
            f"{error.ename}: {error.evalue}\n"
            f"--- source of the cell\n{error.source.rstrip()}\n"
            f"--- end of the traceback\n" + "\n".join(tail) + f"\n--- as far as it got: {_relative(failed, root)}"
        ) from None


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name


_WIDGET = "application/vnd.jupyter.widget-view+json"


def _tidy(content: NotebookNode, source: Path, target: Path, root: Path) -> None:
    """Fold the injected parameters; drop progress bars and the machine's own paths from what readers download."""
    content.metadata.pop("widgets", None)
    for cell in content.cells:
        if cell.cell_type == "code":
            # A bar of a run that is over says nothing, and a second output would get the figure's label too.
            cell.outputs = [output for output in cell.outputs if _WIDGET not in output.get("data", {})]
        tags = cell.metadata.get("tags", [])
        if "injected-parameters" in tags and "hide-input" not in tags:
            cell.metadata["tags"] = [*tags, "hide-input"]
    content.metadata.papermill["input_path"] = _relative(source, root)
    content.metadata.papermill["output_path"] = _relative(target, root)


def _defaults(content: NotebookNode) -> dict[str, Any]:
    return {name: parameter.default for name, parameter in parameters_of(content).items()}


def duration(seconds: float) -> str:
    """Words for a duration, such as ``1 min 12 s``."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _peak_memory() -> float:
    """Largest resident memory of any finished child process, the kernel among them, in GB."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e9


def _stamp(content: NotebookNode, source: Path, values: Mapping[str, Any], seconds: float) -> None:
    """Append the provenance of the page, and keep the same facts in the metadata (key ``ulm``)."""
    import nbformat

    from ulm.runs import pick_device, provenance

    facts = provenance(pick_device(str(values.get("device", "auto"))), seconds=round(seconds, 1))
    facts |= {"memory_gb": round(_peak_memory(), 2), "parameters": dict(values), "notebook": source.stem}
    content.metadata["ulm"] = {**content.metadata.get("ulm", {}), "provenance": facts}
    versions = ", ".join(f"{name} {number}" for name, number in facts["versions"].items())
    lines = [
        "````{admonition} Where this page comes from",
        ":class: provenance",
        f"Executed on {facts['date']} in the profile **{values.get('profile', 'none')}** on {facts['device']}, "
        f"in {duration(seconds)} with at most {facts['memory_gb']:.1f} GB of memory; "
        f"commit {facts['commit'] or 'unknown'}; {versions}.",
        "",
        "Run it again with other parameters:",
        "```bash",
        f"ulm run {source.stem} -p profile paper -p seed 1",
        "```",
        "````",
    ]
    cell = nbformat.v4.new_markdown_cell("\n".join(lines), id="provenance", metadata={"tags": ["provenance"]})
    content.cells.append(cell)
