"""The command line ``ulm``: book, run, fit, predict, evaluate, data, zoo, status.

Progress and messages go to standard error, results to standard output. Bad input ends with one line ``error: ...`` and
exit code 2. PyTorch is imported inside the commands that need it, so that ``ulm --help`` is quick.
"""

from __future__ import annotations

import inspect
import json
import os
import shlex
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from ulm.errors import InputError

if TYPE_CHECKING:
    from ulm.datasets import Dataset
    from ulm.methods import Detector, Trainable


class _Group(TyperGroup):
    """Turns errors that a user can mend into one line and exit code 2."""

    def invoke(self, ctx: Any) -> Any:
        usual = warnings.formatwarning
        warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
        try:
            return super().invoke(ctx)
        except InputError as error:
            problem = str(error)
        except OSError as error:
            if error.filename is None:
                raise
            problem = f"{error.filename}: {error.strerror}; check the path and its permissions"
        finally:
            warnings.formatwarning = usual
        typer.echo(f"error: {problem}", err=True)
        raise typer.Exit(2)


class _Parametrised(TyperCommand):
    """Reads ``-p NAME VALUE`` (papermill's way) as ``-p NAME=VALUE``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, list(_fold(args)))


def _fold(args: list[str]) -> Iterator[str]:
    rest = iter(args)
    for arg in rest:
        yield arg
        if arg in ("-p", "--parameter"):
            name = next(rest, None)
            value = next(rest, None) if name is not None and "=" not in name else ""
            if name is None or value is None:
                raise InputError(f"found {arg} {name or ''} without a value, expected -p NAME VALUE")
            yield name if "=" in name else f"{name}={value}"


app = typer.Typer(
    cls=_Group, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode="markdown", add_completion=False
)
data_app = typer.Typer(cls=_Group, no_args_is_help=True, help="List, fetch, check and export data sets.")
zoo_app = typer.Typer(cls=_Group, no_args_is_help=True, help="Models that ship with the book.")
app.add_typer(data_app, name="data")
app.add_typer(zoo_app, name="zoo")

_SPEC = "procedural:SCENE, coco:FOLDER, folder:IMAGES, or a paper's, such as mafl:ROOT"
_LABELLED = "procedural:SCENE, coco:FOLDER, or a paper's, such as mafl:ROOT"
_Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N; auto takes CUDA where there is one.")]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else on standard output.")]
_Parameters = Annotated[
    list[str] | None, typer.Option("-p", "--parameter", metavar="NAME VALUE", help="May be repeated.")
]


@app.callback()
def _about() -> None:
    """Landmarks without labels: build the book, train a detector on your photographs, use it, measure it.

    Example: ulm fit --data folder:PHOTOS --out MODEL, then ulm predict MODEL PHOTOS --out landmarks.json
    """


# --- the book ---------------------------------------------------------------------------------------------------------


@app.command()
def book(
    profile: Annotated[str, typer.Option(help="smoke (minutes), laptop or paper (CUDA, days).")] = "laptop",
) -> None:
    """Execute all notebooks and build the book; the same as make book.

    Example: ulm book --profile smoke
    """
    from ulm import runs

    runs.profile(profile)
    root = _root()
    if root is None:
        raise InputError("found no book here or above (a folder with _toc.yml and Makefile); go to a clone of the book")
    raise typer.Exit(subprocess.run(["make", "book", f"PROFILE={profile}"], cwd=root, check=False).returncode)


@app.command(cls=_Parametrised)
def run(
    notebook: Annotated[str, typer.Argument(help="A notebook: its file, or its name in notebooks/.")],
    parameter: _Parameters = None,
    out: Annotated[Path | None, typer.Option(help="The executed notebook; default: _build/runs/NAME.ipynb.")] = None,
) -> None:
    """Execute one notebook with parameters of your own; an unknown parameter name is an error.

    Example: ulm run imm-faces -p profile smoke -p seed 3
    """
    from ulm import notebooks

    root = _root() or Path.cwd()
    source = notebooks.find(notebook, root)
    output = out or root / "_build" / "runs" / f"{source.stem}.ipynb"
    try:
        # The text as it is: the notebook's parameters cell declares the types.
        notebooks.execute(source, output, dict(_split(parameter)), root)
    except notebooks.CellFailed as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None
    typer.echo(f"executed {output}", err=True)


@app.command()
def status(as_json: _Json = False) -> None:
    """Say for each table and figure of the papers which rows have a paper's, a recorded and a built number.

    Example: ulm status --json
    """
    from ulm import tables

    rows = tables.status(_root() or Path.cwd())
    _show(rows, as_json, ("id", "rows", "paper", "recorded", "built"))


def _root() -> Path | None:
    """The folder of the book: here or above, else where ``ulm`` is installed from."""
    folders = [Path.cwd(), *Path.cwd().parents, Path(__file__).resolve().parent.parent]
    return next((f for f in folders if (f / "_toc.yml").is_file() and (f / "Makefile").is_file()), None)


# --- a detector -------------------------------------------------------------------------------------------------------


@app.command(cls=_Parametrised)
def fit(
    data: Annotated[str, typer.Option(help=f"Images to learn from: {_SPEC}.")],
    out: Annotated[Path, typer.Option(help="The folder that the model is written to.")],
    method: Annotated[str, typer.Option(help="The method, such as imm.")] = "imm",
    profile: Annotated[str, typer.Option(help="Where settings come from: smoke, laptop or paper.")] = "laptop",
    landmarks: Annotated[int | None, typer.Option(help="K, the number of landmarks.")] = None,
    size: Annotated[int | None, typer.Option(help="Side of the images in pixels.")] = None,
    steps: Annotated[int | None, typer.Option(help="Training steps.")] = None,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    device: _Device = "auto",
    split: Annotated[
        str | None, typer.Option(help="train, val, test or all. Default: all of folder:, train of others.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(help="Most images; default: all files, of scenes as the profile says.")
    ] = None,
    parameter: _Parameters = None,
    start: Annotated[str | None, typer.Option(help="Fine-tune this model: a folder, or a name in the zoo.")] = None,
    video_pairs: Annotated[bool, typer.Option("--video-pairs", help="Pair frames of one video; no warps.")] = False,
    detector_only: Annotated[
        bool, typer.Option("--detector-only", help="Save what predict needs, no generator.")
    ] = False,
    checkpoint_seconds: Annotated[float, typer.Option(help="How much work a kill may lose.")] = 60.0,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the model in OUT, or its checkpoint.")
    ] = False,
) -> None:
    """Train a detector on images; labels, where there are any, are never looked at.

    Shows the loss and the time left. After a kill the same command goes on from the last checkpoint
    (OUT.partial.safetensors) to the same result. -p sets any hyperparameter of the method.

    Example: ulm fit --data folder:PHOTOS --out MODEL

    Another: ulm fit --data coco:FACES --out MODEL --landmarks 30 --steps 3000 -p width 32

    Another: ulm fit --data folder:FACES --out MODEL --start imm-faces-k10 --steps 1000
    """
    from ulm import datasets, methods, zoo

    split = split or ("all" if data.startswith("folder:") else "train")
    given: dict[str, Any] = {"n_landmarks": landmarks, "image_size": size, "steps": steps}
    # Between two frames no warp is known that landmarks could be held to.
    given |= {"pairs": "video", "equivariance": 0.0, "concentration": 0.0} if video_pairs else {}
    given = {k: v for k, v in given.items() if v is not None} | _values(parameter)
    model = _new_model(method, profile, given | {"seed": seed, "device": device})
    images = datasets.load(data, split, model.image_size, _limit(data, profile, limit))
    begin = None if start is None else methods.load(start, device, type(model))
    checkpoint = Path(os.path.abspath(f"{out}.partial.safetensors"))
    if not _is_free(out, checkpoint, model, images, begin and begin.checksum(), overwrite):
        return
    started = time.monotonic()
    model.fit(images, checkpoint=checkpoint, checkpoint_seconds=checkpoint_seconds, start=begin)
    options = {
        "--method": method,
        "--start": start,
        "--data": data,
        "--split": split,
        "--limit": limit,
        "--profile": profile,
        "--seed": seed,
    }
    arguments = [str(w) for k, v in options.items() if v is not None for w in (k, v)]
    arguments += [w for k, v in given.items() for w in ("-p", k, v if isinstance(v, str) else json.dumps(v))]
    arguments += ["--detector-only"] if detector_only else []
    facts = {
        "command": shlex.join(["ulm", "fit", *arguments, "--out", Path(os.path.abspath(out)).name]),
        "arguments": arguments,
        **({} if begin is None else {"start": start, "start_weights": begin.checksum()}),
        **_facts(model, images, data, split, profile, time.monotonic() - started),
    }
    model.save_pretrained(out, detector_only=detector_only, card=facts)
    zoo.write_card(out)
    checkpoint.unlink(missing_ok=True)
    typer.echo(f"saved {out}: {model!r}, trained on {len(images)} images", err=True)


def _new_model(method: str, profile: str, given: dict[str, Any]) -> Trainable:
    from ulm import methods, runs

    if method not in methods.METHODS:
        raise InputError(f"found method {method!r}, expected one of {', '.join(methods.METHODS)}")
    cls = methods.METHODS[method]
    parameters = runs.profile(profile).get(method, {}) | given
    cls.check_names(parameters)
    _check_types(cls, given)
    model = cls(**parameters)
    runs.pick_device(model.device)
    return model


def _check_types(cls: type[Trainable], parameters: dict[str, Any]) -> None:
    """Raises InputError for a value that is not of the type that the method's ``__init__`` declares."""
    types: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "str": (str,), "bool": (bool,)}
    for name, value in parameters.items():
        declared = str(inspect.signature(cls.__init__).parameters[name].annotation)
        known = [part.strip() for part in declared.split("|")]
        allowed = tuple(kind for part in known for kind in types.get(part, ()))
        if (value is None and "None" in known) or not allowed:
            continue
        if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
            raise InputError(f"found {name}={value!r}, expected {declared.replace('|', 'or')}")


def _limit(data: str, profile: str, limit: int | None) -> int | None:
    from ulm import runs

    return limit if limit is not None or not data.startswith("procedural:") else runs.profile(profile)["data"]


def _is_free(
    out: Path, checkpoint: Path, model: Trainable, images: Dataset, start: str | None, overwrite: bool
) -> bool:
    """Whether ``out`` may be written; False: it already holds this very model. Raises InputError if it may not."""
    from ulm import zoo

    if overwrite:
        checkpoint.unlink(missing_ok=True)
        return True
    if out.is_dir() and (out / "config.json").is_file():
        known = zoo.config(out)
        same = known["parameters"] == model.get_params() | {"device": "auto"} and known["method"] == model.name
        card = known.get("card", {})
        same = same and card.get("start_weights") == start
        if same and card.get("fingerprint") == images.fingerprint and not checkpoint.exists():
            typer.echo(f"{out} already holds this model; --overwrite trains it anew", err=True)
            return False
        if same and checkpoint.exists():  # Killed between saving the model and removing the checkpoint.
            return True
        raise InputError(f"{out}: found another model; choose another --out, or add --overwrite")
    if out.is_dir() and any(p.name != "model.safetensors" and p.name[0] != "." for p in out.iterdir()):
        raise InputError(f"{out}: found other files, expected a new or empty folder; choose another --out")
    out.mkdir(parents=True, exist_ok=True)  # Now, not after hours of training, it shows whether that is possible.
    return True


def _facts(model: Trainable, images: Dataset, data: str, split: str, profile: str, seconds: float) -> dict[str, Any]:
    from ulm import runs

    last = model.history_[-1] if model.history_ else {}
    return runs.provenance(
        model.torch_device,
        data=data,
        split=split,
        fingerprint=images.fingerprint,
        n_images=len(images),
        profile=profile,
        steps=model.steps,
        images_seen=last.get("images_seen"),
        seconds=round(last.get("seconds", seconds), 1),
    )


@app.command()
def predict(
    model: Annotated[str, typer.Argument(help="A model folder, or a name of ulm zoo list.")],
    images: Annotated[Path, typer.Argument(help="A folder of images, or one image.")],
    out: Annotated[Path, typer.Option(help="The file to write.")] = Path("landmarks.json"),
    device: _Device = "auto",
) -> None:
    """Find landmarks in images and write them as COCO keypoints, in pixels of each image file.

    The origin is the upper left corner of the image as viewers show it (EXIF orientation applied). Images that are not
    square are padded, so photographs should show the object about as large as those the model has learnt from. After a
    kill the same command goes on where it was.

    Example: ulm predict MODEL PHOTOS --out landmarks.json
    """
    from tqdm.auto import tqdm

    from ulm import methods
    from ulm.datasets import coco
    from ulm.datasets import images as reading
    from ulm.evaluation.keeping import Kept
    from ulm.runs import atomic_write

    detector: Detector = methods.load(model, device)
    files = reading.find_images(images)
    root = images if images.is_dir() else images.parent
    parts = [files[start : start + 32] for start in range(0, len(files), 32)]
    states = [file.stat() for file in files]
    kept = Kept(detector, [str(f.resolve()) for f in files], [(state.st_size, state.st_mtime_ns) for state in states])
    landmarks, sizes = [], []
    with tqdm(total=len(files), desc="predicting", unit="image", file=sys.stderr) as bar:
        for number, part in enumerate(parts):
            found, shapes = _predict_files(detector, part, partial(kept, number))
            landmarks += found
            sizes += shapes
            bar.update(len(found))
    names = [f"point-{k + 1:02d}" for k in range(detector.n_landmarks)]
    relative = [f.relative_to(root).as_posix() for f in files]
    atomic_write(out, json.dumps(coco.predictions_to_coco(names, landmarks, relative, sizes)) + "\n")
    kept.finish()
    typer.echo(f"wrote {out}: {detector.n_landmarks} landmarks in {len(files)} images", err=True)


def _predict_files(
    detector: Detector, files: list[Path], keep: Callable[[Callable[[], Any]], Any]
) -> tuple[list[Any], list[tuple[int, int]]]:
    """Landmarks ``(K, 2)`` in pixels of each file, and (height, width) of each file."""
    import torch

    from ulm.datasets.folder import to_tensor
    from ulm.datasets.images import cut, read_image, whole

    size, batch, squares, sizes = detector.image_size, [], [], []
    for file in files:
        image = read_image(file)
        sizes.append((image.shape[0], image.shape[1]))
        squares.append(whole(image.shape[1], image.shape[0]))
        batch.append(to_tensor(cut(image, squares[-1], size)))
    found = keep(lambda: detector.predict(torch.stack(batch)))
    return [square.to_image(points, size) for square, points in zip(squares, found, strict=True)], sizes


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(help="A model folder, or a name of ulm zoo list.")],
    data: Annotated[str, typer.Option(help=f"Labelled images to test on: {_LABELLED}.")],
    fit_data: Annotated[str | None, typer.Option(help="Labelled images that the regressor is fitted on.")] = None,
    labels: Annotated[int, typer.Option(help="Labelled images of one fit.")] = 300,
    repeats: Annotated[int, typer.Option(help="Random subsets of labelled images; errors are averaged.")] = 10,
    regressor: Annotated[str, typer.Option(help="Whose regression protocol: inter-intra, imm, imm-bias, ...")] = (
        "inter-intra"
    ),
    normaliser: Annotated[str | None, typer.Option(help="What errors are divided by; default: the data set's.")] = None,
    subset: Annotated[str | None, typer.Option(help="A named subset of the landmarks, such as mafl-5.")] = None,
    seed: Annotated[int, typer.Option(help="Of the random subsets.")] = 0,
    split: Annotated[str | None, typer.Option(help="Of --data: train, val, test or all.")] = None,
    fit_split: Annotated[str | None, typer.Option(help="Of --fit-data.")] = None,
    limit: Annotated[int | None, typer.Option(help="Most test images; default: all files, 500 of a scene.")] = None,
    supervised: Annotated[
        bool, typer.Option("--supervised", help="Also train a network on the same labels, for comparison.")
    ] = False,
    add_to_card: Annotated[bool, typer.Option("--add-to-card", help="Keep the numbers in the model's card.")] = False,
    device: _Device = "auto",
    as_json: _Json = False,
) -> None:
    """Measure a model: forward and backward NME in percent, beside the mean shape and the untrained network.

    Without --fit-data, or with the same data in both, the regressor is fitted on the split train and tested on the
    split test. Two different folders are used whole. After a kill the same command goes on where it was.

    Example: ulm evaluate MODEL --data coco:FACES

    Two folders: ulm evaluate MODEL --data coco:TEST --fit-data coco:TRAIN --labels 300 --repeats 10 --json
    """
    from ulm import evaluation, methods, zoo

    detector: Detector = methods.load(model, device)
    folder = Path(model) if Path(model).is_dir() else zoo.path(model)
    test, fit_images = _test_and_fit(data, fit_data or data, split, fit_split, detector.image_size, limit)
    if labels > len(fit_images):
        typer.echo(f"warning: {len(fit_images)} images to fit on, fewer than the {labels} labels asked for", err=True)
    _warn_of_seen(folder, test, data)
    report = evaluation.evaluate_detector(
        detector,
        test,
        fit_images,
        labels=labels,
        repeats=repeats,
        regressor=regressor,
        normaliser=normaliser,
        subset=subset,
        seed=seed,
        supervised=evaluation.SupervisedBaseline(seed=seed) if supervised else None,
        progress=True,
    )
    for message in report.warnings:
        typer.echo(f"warning: {message}", err=True)
    if add_to_card:
        zoo.add_measurement(folder, {k: v for k, v in report.to_dict().items() if v not in (None, [])})
    _show_one(report.to_dict() if as_json else _brief(report.to_dict()), as_json)


def _test_and_fit(
    data: str, fit_data: str, split: str | None, fit_split: str | None, size: int, limit: int | None
) -> tuple[Dataset, Dataset]:
    """The test images and the labelled images of the regressor."""
    from ulm import datasets, runs

    laptop = runs.profile("laptop")
    same = _place(data) == _place(fit_data)
    split = split or ("test" if same or data.startswith("procedural:") else "all")
    fit_split = fit_split or ("train" if same or fit_data.startswith("procedural:") else "all")
    drawn, fit_drawn = (spec.startswith("procedural:") for spec in (data, fit_data))
    test = datasets.load(data, split, size, limit or (laptop["test"] if drawn else None))
    of, n = (laptop["data"], laptop["fit"]) if fit_drawn else (None, None)
    images = datasets.labelled(fit_data, size, of, n, fit_split)
    names, fit_names = test.info.landmark_names, images.info.landmark_names
    if not names or not fit_names:
        raise InputError(f"found no landmarks in {fit_data if names else data}, expected labelled images: {_LABELLED}")
    if names != fit_names:
        raise InputError(
            f"found {len(names)} landmarks in {data} and {len(fit_names)} in {fit_data}, or other names; "
            "expected the same landmarks in both"
        )
    return test, images


def _place(spec: str) -> str:
    kind, _, rest = spec.partition(":")
    return spec if kind == "procedural" else os.path.realpath(rest.partition("#")[0])


def _warn_of_seen(folder: Path, test: Dataset, data: str) -> None:
    """Warn if the card says that the model has learnt from the very images it is tested on."""
    from ulm import zoo

    made = zoo.config(folder).get("card") or {}
    known = made.get("data")
    if known and _place(known) == _place(data) and "all" in (made.get("split"), test.split):
        typer.echo(f"warning: the model has learnt from images of {data} that it is tested on", err=True)


def _brief(report: dict[str, Any]) -> dict[str, Any]:
    labels = f"{report['labels']} of {report['n_fit']}, {report['repeats']} repeats, regressor {report['regressor']}"
    words = {"forward_nme": "forward NME", "backward_nme": "backward NME", "mean_shape_nme": "mean shape"}
    words |= {"untrained_nme": "untrained network", "supervised_nme": "supervised, same labels"}
    shown = {word: f"{report[key]:.2f} %" for key, word in words.items() if report.get(key) is not None}
    return shown | {
        "divided by": report["normaliser"],
        "landmarks": f"{report['landmarks']} discovered, {report['points']} annotated",
        "labels": labels,
        "test images": report["n_test"],
        "seconds": report["seconds"],
    }


# --- data and zoo -----------------------------------------------------------------------------------------------------


@data_app.command("list")
def data_list(
    root: Annotated[
        Path | None,
        typer.Option(help="A folder of data sets: open data is looked for there, labelled sub-folders are listed too."),
    ] = None,
    as_json: _Json = False,
) -> None:
    """List the data sets: what to name in --data, and whether it is here.

    Example: ulm data list --json
    """
    rows = _data_rows(root)
    if not as_json:
        words = {True: "present", False: "missing", None: ""}
        rows = [row | {"present": words[row["present"]]} for row in rows]
    _show(rows, as_json, ("spec", "present", "landmarks", "stand_in", "licence", "access"))


_ACCESS = {"procedural": "drawn by ulm", "coco": "your labelled images", "folder": "your images"}


def _data_rows(root: Path | None) -> list[dict[str, Any]]:
    """Every row has name, spec, stand_in, landmarks, licence, access and present (None: it depends on the folder)."""
    from ulm import datasets
    from ulm.datasets import download

    fetched = download.listing(root)
    specs = {row["spec"] for row in fetched}
    rows = [row for row in datasets.listing(root) if row["name"] not in specs]
    usual = {"stand_in": None, "licence": None}
    return [usual | {"spec": r["name"], "access": _ACCESS.get(r["kind"])} | r for r in (*rows, *fetched)]


@data_app.command("get")
def data_get(
    name: Annotated[str, typer.Argument(help="faces-ytf or people-lsp.")],
    out: Annotated[Path | None, typer.Option(help="The folder to write; default: in the cache folder.")] = None,
    keep_raw: Annotated[bool, typer.Option("--keep-raw", help="Keep the raw files in OUT.download.")] = False,
) -> None:
    """Fetch open photographs with landmarks, check every file, and write a folder for --data coco:OUT.

    The photographs are for research. After a kill or a cut connection the same command goes on. The environment
    variable ULM_GITHUB names a mirror to use instead of https://github.com.

    Example: ulm data get faces-ytf --out DATA/faces-ytf
    """
    from ulm.datasets import download

    folder = download.get(name, out, keep_raw)
    typer.echo(f"{folder}: {download.SETS[name].what}, {download.SETS[name].licence}", err=True)
    typer.echo(f"coco:{folder}")


@data_app.command("export")
def data_export(
    spec: Annotated[str, typer.Argument(help=f"{_LABELLED}.")],
    out: Annotated[Path, typer.Argument(help="A new folder.")],
    split: Annotated[str, typer.Option(help="train, val, test or all.")] = "all",
    size: Annotated[int, typer.Option(help="Side of the images in pixels.")] = 128,
    limit: Annotated[int | None, typer.Option(help="Most items; default: all files, 64 of a scene.")] = None,
    image_format: Annotated[str, typer.Option("--format", help="png, or jpg of quality 95.")] = "png",
) -> None:
    """Write a labelled data set as a folder in the COCO keypoints format, which coco:OUT reads.

    Example: ulm data export procedural:faces OUT --split test --limit 1000
    """
    from ulm import datasets
    from ulm.datasets.export import export

    limit = limit or (64 if spec.startswith("procedural:") else None)
    data = datasets.load(spec, split, size, limit)
    folder = export(data, out, image_format)
    typer.echo(f"wrote {len(data)} images", err=True)
    typer.echo(f"coco:{folder}")


@data_app.command("check")
def data_check(
    spec: Annotated[str, typer.Argument(help=f"{_SPEC}.")],
    size: Annotated[int, typer.Option(help="Side that the images are resized to.")] = 64,
    limit: Annotated[
        int | None,
        typer.Option(help="Most items to read; default: all files, 64 of a scene, 2,000 of the papers' data sets."),
    ] = None,
    as_json: _Json = False,
) -> None:
    """Read a data set and say what it holds, or what is wrong with it.

    Of the papers' data sets the numbers of images are compared with the official ones too.

    Example: ulm data check coco:FACES

    Another: ulm data check mafl:CELEBA
    """
    from ulm import datasets

    problems = datasets.check(spec)
    for problem in problems:
        if problem.kind == "error":
            raise InputError(problem.text)
        typer.echo(f"warning: {problem.text}", err=True)
    _show_one(_check(spec, size, limit) | ({"warnings": len(problems)} if problems else {}), as_json)


def _check(spec: str, size: int, limit: int | None) -> dict[str, Any]:
    from tqdm.auto import tqdm

    from ulm import datasets
    from ulm.datasets.real import SOURCES

    procedural = spec.startswith("procedural:")
    usual = 64 if procedural else 2_000 if spec.partition(":")[0] in SOURCES else None
    data = datasets.load(spec, "test" if procedural else "all", size, limit or usual)
    landmarks = labelled = visible = 0
    problems = []
    for index in tqdm(range(len(data)), desc=f"checking {spec}", unit="image", file=sys.stderr):
        try:
            item = data[index]
        except InputError as error:
            problems.append(str(error))
            continue
        landmarks += len(item["landmarks"])
        labelled += int(item["landmarks"].isfinite().all(-1).sum())
        visible += int(item["visible"].sum())
    if problems:
        more = f" (and {len(problems) - 1} more items with errors)" if len(problems) > 1 else ""
        raise InputError(problems[0] + more)
    report = {
        "data": spec,
        "items": len(data),
        "landmarks": len(data.info.landmark_names),
        "labelled": f"{labelled / landmarks:.1%}" if landmarks else None,
        "visible": f"{visible / landmarks:.1%}" if landmarks else None,
        "normaliser": data.info.normaliser,
        "fingerprint": data.fingerprint,
    }
    return report | ({} if procedural else {f"{s}_items": _count(spec, s, size) for s in ("train", "val", "test")})


def _count(spec: str, split: str, size: int) -> int:
    from ulm import datasets

    try:
        return len(datasets.load(spec, split, size))
    except InputError:
        return 0  # 'all' was read before: the split is empty


@zoo_app.command("list")
def zoo_list(as_json: _Json = False) -> None:
    """List the models that ship with the book.

    Example: ulm zoo list --json
    """
    from ulm import zoo

    _show(zoo.list(), as_json, ("name", "method", "landmarks", "image_size", "megabytes", "data"))


@zoo_app.command("card")
def zoo_card(name: Annotated[str, typer.Argument(help="A name of ulm zoo list.")], as_json: _Json = False) -> None:
    """Show how a model was made, and what was measured with it.

    Example: ulm zoo card imm-faces-k10
    """
    from ulm import zoo

    typer.echo(json.dumps(zoo.card(name), indent=1) if as_json else zoo.card_text(zoo.path(name)), nl=as_json)


@zoo_app.command("train")
def zoo_train(
    name: Annotated[str, typer.Argument(help="A name of ulm zoo list.")],
    out: Annotated[Path, typer.Option(help="The folder that the model is written to.")],
    profile: Annotated[str, typer.Option(help="Where settings come from: smoke, laptop or paper.")] = "laptop",
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    device: _Device = "auto",
) -> None:
    """Make a model of the zoo again; an interrupted training goes on.

    Example: ulm zoo train imm-faces-k10 --out MODEL
    """
    from ulm.zoo import recipes

    model = recipes.train(name, profile, out=out, device=device, seed=seed)
    typer.echo(f"saved {out}: {model!r}", err=True)


# --- values and output ------------------------------------------------------------------------------------------------


def _values(parameters: list[str] | None) -> dict[str, Any]:
    """``NAME=VALUE`` strings to a dict; a value is JSON, or True, False, None as Python writes them, else a string."""
    return {name: _value(text) for name, text in _split(parameters)}


def _split(parameters: list[str] | None) -> list[tuple[str, str]]:
    return [(name, text) for name, _, text in (p.partition("=") for p in parameters or ())]


def _value(text: str) -> Any:
    words: dict[str, Any] = {"True": True, "False": False, "None": None}
    if text in words:
        return words[text]
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _show(rows: Any, as_json: bool, columns: tuple[str, ...]) -> None:
    if as_json:
        typer.echo(json.dumps(list(rows), indent=1))
        return
    lines = [columns, *(tuple(_cell(row.get(c)) for c in columns) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    for line in lines:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _show_one(row: dict[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(row))
        return
    width = max(map(len, row))
    for key, value in row.items():
        typer.echo(f"{key.ljust(width)}  {_cell(value)}")


def _cell(value: Any) -> str:
    return "" if value is None else str(value)


main: Callable[[], Any] = app

if __name__ == "__main__":
    main()
