"""The house: versions, pairs, licences, no traces of one machine; and the workflow that executes the notebooks."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import jupytext
import nbformat
import pytest
import yaml

from ulm.errors import InputError
from ulm.notebooks import CellFailed, UnknownParameter, convert, duration, execute, find, parameters_of

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "workflow"))

from plan import notebooks, pages, plan  # noqa: E402

SOURCES = sorted((ROOT / "notebooks").glob("*.py"))
COMMON = {"profile": "str", "dataset": "str", "data_root": "str", "device": "str", "seed": "int", "retrain": "bool"}


def tracked() -> list[Path]:
    """Files that are, or would be, committed."""
    listing = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [ROOT / name for name in listing.stdout.splitlines() if (ROOT / name).is_file()]


# ---------------------------------------------------------------------------------------------- versions


def locked() -> dict[str, str]:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


def test_lock_is_exact():
    lines = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9A-Za-z.]*", line) for line in lines), "a pin is not exact"
    versions = locked()
    assert versions["torch"] == "2.13.0"
    assert versions["jupyter-book"].startswith("1.")
    assert "torchvision" not in versions


def test_lock_covers_what_the_package_asks_for():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + [name for extra in project["optional-dependencies"].values() for name in extra]
    names = {re.split(r"[<>=]", requirement)[0] for requirement in wanted}
    assert names <= {name.lower().replace("_", "-") for name in locked()}


def test_conda_installs_the_same_lock():
    content = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert content["dependencies"][-1]["pip"] == ["-r requirements.lock", "-e ."]


# ---------------------------------------------------------------------------------------------- licences, traces


def test_licences_and_citation():
    text = (ROOT / "LICENSE").read_text()
    assert "MIT License" in text
    assert "CC BY 4.0" in text
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["authors"] == [{"name": "The Landmarks Without Labels authors"}]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert citation["version"] == project["version"]
    assert len(citation["references"]) == 4


def test_no_machine_paths_and_no_registry_hosts():
    path = re.compile(r"(?<![A-Za-z0-9_.:/~-])/(?:root|home|tmp|opt|mnt|srv|work|farm|Users)/[A-Za-z_.]")
    host = re.compile(r"pypi\.org|pythonhosted|registry\.npmjs|--(extra-)?index-url|download\.pytorch")
    found = []
    for file in tracked():
        if "mathjax" in file.parts or file == Path(__file__).resolve():
            continue
        try:
            text = file.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [
            f"{file.relative_to(ROOT)}: {match.group()}" for match in (path.search(text), host.search(text)) if match
        ]
    assert not found


# ---------------------------------------------------------------------------------------------- pages and pairs


def test_every_page_is_in_the_table_of_contents():
    listed = set(pages(ROOT))
    assert {f"book/{file.stem}" for file in (ROOT / "book").glob("*.md")} <= listed
    assert {f"notebooks/{file.stem}" for file in SOURCES} == set(notebooks(ROOT))


def test_no_orphans():
    assert {file.stem for file in SOURCES} == {file.stem for file in (ROOT / "notebooks").glob("*.ipynb")}


@pytest.mark.parametrize("source", SOURCES, ids=lambda file: file.stem)
def test_pair_is_in_sync(source):
    text = jupytext.read(source)
    pair = nbformat.read(source.with_suffix(".ipynb"), as_version=4)
    facts = [
        [
            (cell.cell_type, cell.source, cell.metadata.get("tags", []), cell.metadata.get("mystnb", {}))
            for cell in nb.cells
        ]
        for nb in (text, pair)
    ]
    assert facts[0] == facts[1], "run `make sync`"
    assert text.metadata.get("ulm") == pair.metadata.get("ulm"), "run `make sync`"
    code = [cell for cell in pair.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code), "notebooks are committed without outputs"
    assert len({cell.id for cell in pair.cells}) == len(pair.cells)
    assert pair.metadata.kernelspec.name == "python3"


@pytest.mark.parametrize("source", SOURCES, ids=lambda file: file.stem)
def test_notebook_keeps_the_habits(source):
    content = jupytext.read(source)
    parameters = parameters_of(content)
    assert list(COMMON.items()) == [(name, parameters[name].kind) for name in COMMON]
    assert all(parameter.help for parameter in parameters.values()), "each parameter has a comment"
    assert ":class: chapter-card" in content.cells[0].source
    for cell in content.cells:
        figure = cell.metadata.get("mystnb", {}).get("figure")
        if figure is not None:
            assert 1 <= len(figure["caption"].split()) <= 8, f"a caption of at most 8 words: {figure['caption']}"
            assert figure["name"].startswith("fig-")
            assert cell.metadata["mystnb"]["image"]["alt"]


def test_nothing_in_ulm_imports_a_notebook():
    imports = re.compile(r"^\s*(?:from|import) notebooks\b", re.M)
    assert not [file for file in (ROOT / "ulm").rglob("*.py") if imports.search(file.read_text())]


# ---------------------------------------------------------------------------------------------- parameters

CELL = """# %% tags=["parameters"]
K: int = 10  # landmarks
rate: float = 1e-3
name: str = "a=b"  # with a sign that papermill's own reader trips over
limit: int | None = None
sizes: list = [1, 2]
plain = True
"""


@pytest.fixture
def notebook(tmp_path):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "_toc.yml").write_text("format: jb-book\nroot: index\n")
    file = tmp_path / "notebooks" / "tiny.py"
    file.write_text(CELL + "\n# %%\nimport os\nprint(K * 2, limit, os.getcwd() != '')\n")
    return file


def test_parameters_are_read(notebook):
    found = parameters_of(notebook)
    assert [(p.name, p.kind, p.default) for p in found.values()] == [
        ("K", "int", 10),
        ("rate", "float", 0.001),
        ("name", "str", "a=b"),
        ("limit", "int | None", None),
        ("sizes", "list", [1, 2]),
        ("plain", "bool", True),
    ]
    assert found["K"].help == "landmarks"


def test_text_becomes_the_declared_type(notebook):
    given = {"K": "30", "rate": "1", "name": "7", "limit": "5", "sizes": "[3]", "plain": "false"}
    converted = convert(given, parameters_of(notebook))
    assert converted == {"K": 30, "rate": 1.0, "name": "7", "limit": 5, "sizes": [3], "plain": False}
    assert convert({"limit": "none"}, parameters_of(notebook)) == {"limit": None}


def test_unknown_parameter_is_an_error(notebook, tmp_path):
    with pytest.raises(UnknownParameter, match=r"'landmark'.*K: int"):
        convert({"landmark": 3}, parameters_of(notebook))
    with pytest.raises(UnknownParameter, match="did you mean 'rate'"):
        execute(notebook, tmp_path / "out.ipynb", {"rat": 3}, tmp_path)
    assert not (tmp_path / "out.ipynb").exists()


@pytest.mark.parametrize(
    ("name", "value"), [("K", "many"), ("K", 1.5), ("K", True), ("plain", "perhaps"), ("rate", "x")]
)
def test_value_of_the_wrong_type_is_an_error(notebook, name, value):
    with pytest.raises(InputError, match=f"{name}="):
        convert({name: value}, parameters_of(notebook))


def test_parameters_cell_must_be_literal(tmp_path):
    file = tmp_path / "bad.py"
    file.write_text('# %% tags=["parameters"]\nK: int = len("x")\n')
    with pytest.raises(InputError, match="literal"):
        parameters_of(file)


def test_missing_notebook_lists_those_there_are(notebook, tmp_path):
    assert find("tiny", tmp_path) == find("notebooks/tiny.py", tmp_path) == notebook
    with pytest.raises(InputError, match="tiny"):
        find("nothing", tmp_path)


def test_duration():
    assert [duration(seconds) for seconds in (3.4, 72, 3600)] == ["3 s", "1 min 12 s", "60 min 0 s"]


# ---------------------------------------------------------------------------------------------- executing


def test_execute_injects_stamps_and_hides(notebook, tmp_path):
    output = tmp_path / "out" / "tiny.ipynb"
    execute(notebook, output, {"K": "21"}, tmp_path, progress=False)
    content = nbformat.read(output, as_version=4)
    injected = next(cell for cell in content.cells if "injected-parameters" in cell.metadata.tags)
    assert "K = 21" in injected.source
    assert "hide-input" in injected.metadata.tags
    assert content.cells[2].outputs[0].text == "42 None True\n"
    assert content.cells[-1].metadata.tags == ["provenance"]
    assert "ulm run tiny" in content.cells[-1].source
    assert content.metadata.ulm.provenance.parameters.K == 21
    assert str(tmp_path) not in output.read_text(), "a path of this machine is in the notebook"
    assert sorted(path.name for path in output.parent.iterdir()) == ["tiny-numbers", "tiny.ipynb"]


def test_failed_cell_is_named_and_nothing_half_written_stays(notebook, tmp_path):
    notebook.write_text(notebook.read_text() + "\n# %%\nvalue = 1\nraise ValueError('broken on purpose')\n")
    output = tmp_path / "out" / "tiny.ipynb"
    with pytest.raises(CellFailed) as caught:
        execute(notebook, output, {}, tmp_path, progress=False)
    message = str(caught.value)
    assert "notebook tiny, cell 3" in message
    assert "raise ValueError('broken on purpose')" in message
    assert "ValueError: broken on purpose" in message
    assert not output.exists()
    assert (output.parent / "tiny.failed.ipynb").is_file()


# ---------------------------------------------------------------------------------------------- what runs again


@pytest.fixture
def house(tmp_path):
    """A checkout in small: two notebooks, a library, a lock, and the real workflow."""
    for name in ("notebooks", "ulm", "results"):
        (tmp_path / name).mkdir()
    shutil.copytree(ROOT / "workflow", tmp_path / "workflow", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "ulm" / "part.py").write_text("x = 1\n")
    (tmp_path / "requirements.lock").write_text("torch==2.13.0\n")
    chapters = "parts:\n- chapters:\n  - file: notebooks/first\n  - file: notebooks/second\n"
    (tmp_path / "_toc.yml").write_text("format: jb-book\nroot: index\n" + chapters)
    (tmp_path / "index.md").write_text("# Index\n")
    cell = '# %% tags=["parameters"]\nprofile: str = "laptop"\n\n# %%\n'
    (tmp_path / "notebooks" / "first.py").write_text(cell + "print(profile)\n")
    (tmp_path / "notebooks" / "second.py").write_text(
        cell + "import os, pathlib, time\nmark = pathlib.Path('mark')\nif not mark.exists():\n    mark.touch()\n"
        "    time.sleep(300)\npathlib.Path(os.environ['ULM_NUMBERS'], 'a.json').write_text('[]')\n"
    )
    return tmp_path


def keys(house: Path, **options) -> dict[str, str]:
    given = {"profile": "smoke", "cores": 2} | options
    return {job.name: job.key for job in plan(house, **given)}


def test_key_follows_contents_and_nothing_else(house):
    before = keys(house)
    os.utime(house / "notebooks" / "first.py")
    os.utime(house / "ulm" / "part.py")
    assert keys(house) == before
    (house / "notebooks" / "first.py").write_text((house / "notebooks" / "first.py").read_text() + "# new\n")
    after = keys(house)
    assert after["first"] != before["first"]
    assert after["second"] == before["second"]


@pytest.mark.parametrize("change", ["ulm/part.py", "ulm/new.py", "requirements.lock", "results/run.json"])
def test_key_follows_what_all_notebooks_use(house, change):
    before = keys(house)
    (house / change).write_text("changed\n")
    assert not set(keys(house).values()) & set(before.values())


def test_key_follows_parameters_and_data(house):
    before = keys(house)
    assert keys(house, profile="laptop") != before
    data = house / "data"
    data.mkdir()
    (data / "a.jpg").write_bytes(b"1")
    first = keys(house, data_root=str(data))
    (data / "b.jpg").write_bytes(b"2")
    assert len({json.dumps(each) for each in (before, first, keys(house, data_root=str(data)))}) == 3
    with pytest.raises(InputError, match="DATA_ROOT"):
        keys(house, data_root=str(house / "missing"))


def test_results_do_not_depend_on_the_number_of_cores(house):
    assert keys(house, profile="laptop", cores=2) == keys(house, profile="laptop", cores=16)
    # At the size of the papers one notebook has them all.
    assert {job.threads for job in plan(house, "paper", 16)} == {16}


def test_notebook_says_what_it_needs(house):
    first = house / "notebooks" / "first.py"
    first.write_text("# ---\n# jupyter:\n#   ulm:\n#     minutes: 7\n#     threads: 4\n# ---\n\n" + first.read_text())
    jobs = {job.name: job for job in plan(house, "laptop", 2)}
    assert (jobs["first"].minutes, jobs["first"].threads) == (7, 2)
    assert (jobs["second"].minutes, jobs["second"].threads) == (0, 1)


def test_toc_with_a_missing_page_is_an_error(house):
    (house / "notebooks" / "second.py").unlink()
    with pytest.raises(InputError, match="notebooks/second"):
        keys(house)


def build(house: Path, **options) -> subprocess.Popen:
    command = [sys.executable, "workflow/build.py", "run", "--profile", "smoke", "--cores", "2"]
    return subprocess.Popen(
        command,
        cwd=house,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        **options,
    )


def test_build_resumes_after_kill_nine(house):
    """`kill -9` of everything in the middle, then the same command: the rest is executed, what was done is kept."""
    runs = house / "_build" / "runs" / "smoke"
    process = build(house)
    deadline = time.monotonic() + 240
    while not ((house / "mark").exists() and (runs / "notebooks" / "first.ipynb").exists()):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "the notebooks did not start"
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (runs / "notebooks" / "second.ipynb").exists()
    assert not (runs / "numbers" / "second").exists()

    output, _ = build(house).communicate(timeout=240)
    assert "executed notebooks/second.py" in output
    assert (runs / "numbers" / "second" / "a.json").read_text() == "[]"
    content = nbformat.read(runs / "notebooks" / "second.ipynb", as_version=4)
    assert content.cells[-1].metadata.tags == ["provenance"]
    left = [path for path in runs.rglob(".*") if path.name != ".snakemake_timestamp"]
    assert not left, "something half-written is left"

    again, _ = build(house).communicate(timeout=240)
    assert "executed" not in again, "nothing changed, so nothing runs"


def test_failing_notebook_fails_the_build_and_is_named(house):
    (house / "mark").touch()
    (house / "notebooks" / "first.py").write_text("# %%\n1 / 0\n")
    process = build(house)
    output, _ = process.communicate(timeout=240)
    assert process.returncode != 0
    assert "notebook first, cell 1" in output
    assert "1 / 0" in output
    assert "executed notebooks/second.py" in output, "the others go on"
    (house / "notebooks" / "first.py").write_text("# %%\n1 / 1\n")
    process = build(house)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    assert "executed notebooks/first.py" in output
    assert "executed notebooks/second.py" not in output, "what succeeded is kept"


def test_progress_bars_do_not_reach_the_page():
    from ulm.notebooks import _tidy

    cell = nbformat.v4.new_code_cell("fit()")
    cell.outputs = [
        nbformat.v4.new_output("display_data", {"application/vnd.jupyter.widget-view+json": {}, "text/plain": "0%"}),
        nbformat.v4.new_output("display_data", {"image/png": "", "text/plain": "a figure"}),
    ]
    content = nbformat.v4.new_notebook(cells=[cell], metadata={"papermill": {}, "widgets": {}})
    _tidy(content, ROOT / "notebooks" / "a.py", ROOT / "a.ipynb", ROOT)
    assert [output.data["text/plain"] for output in content.cells[0].outputs] == ["a figure"]
    assert "widgets" not in content.metadata
