# ---
# jupyter:
#   jupytext:
#     notebook_metadata_filter: ulm
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
#   ulm:
#     minutes: 3
# ---

# %% [markdown]
# # Inter-Intra on faces
#
# ````{admonition} Chapter card
# :class: chapter-card
#
# | | |
# |---|---|
# | **You will** | see Tables I, II and III of {cite:t}`li2020` beside what this build measures, and redraw their Figure 2; see what the stranger and the way back add, with a core that knows people and from scratch; see how few labels are enough |
# | **You need** | [Inter-Intra, step by step](inter_intra_method.ipynb); [the protocol](../book/protocol.md) |
# | **Time** | 15 minutes to read, 3 minutes to run |
# | **Computer** | any, no GPU; 2 GB of memory |
# | **Data** | drawn here: 7,000 pictures of 64 × 64 pixels, which the chapter [IMM on faces](imm_faces.ipynb) has drawn already |
# ````
#
# This chapter has no new idea. It measures. Each number of this build is computed when the page is made, from a trained detector that
# ships with the book. Where there is no such detector yet, the cell is empty, and the last section lists it. The paper's numbers were measured on photographs; compare
# orders and shares of the mean shape's error, not digits.

# %% tags=["parameters"]
profile: str = "laptop"  # smoke, laptop or paper: how much is computed
dataset: str = "auto"  # auto: the paper's data if data_root has it, else its stand-in
data_root: str = ""  # folder that holds real data sets
device: str = "auto"  # auto, cpu, cuda or cuda:N
seed: int = 0  # of everything random
retrain: bool = False  # train from scratch instead of loading what ships with the book
models: str = ""  # folder of further models, named like the zoo's; they go first

# %% tags=["hide-input"]
import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown

from ulm import chapters, evaluation, figures, methods, runs, tables
from ulm.methods.inter_intra import VARIANTS

settings = runs.profile(profile)
runs.seed_everything(seed)
where = runs.pick_device(device)
print(
    f"profile {profile}, {runs.device_name(where)}, PyTorch {torch.__version__}, seed {seed}"
)

# %% [markdown]
# ## Data, protocol, models
#
# `procedural:faces` stands in for MAFL, `procedural:faces-posed` for AFLW. The paper trains once, on CelebA, and fits two regressors, one for each of its columns; unlike IMM
# it does not fine-tune before AFLW. So each of our detectors is trained once too, on `faces-posed`, whose heads are turned by any angle, and then measured on both.

# %%
faces = chapters.data(
    dataset, data_root, paper="mafl", standin="procedural:faces", profile=profile
)
posed = chapters.data(
    "auto", data_root, paper="aflw", standin="procedural:faces-posed", profile=profile
)
columns = {"MAFL": faces, "AFLW": posed}
record = chapters.Record("inter_intra_faces", profile, where)
pd.DataFrame(
    {
        "data": [data.name for data in columns.values()],
        "labelled": [len(data.fit) for data in columns.values()],
        "tested": [len(data.test) for data in columns.values()],
        "size": [data.test.size for data in columns.values()],
    },
    index=[f"stands for {column}" for column in columns],
)

# %% [markdown]
# The regressor is that of the authors' code: ridge regression on centred data. IMM's has no intercept, so the rows of one table follow two protocols, in the paper and here.
# As in [IMM on faces](imm_faces.ipynb) we take the five points of MAFL, divide by the distance of the pupils, and on `faces-posed`, where that distance goes to zero, by the size of the box. No
# picture is cut by annotated points: the authors' are, so that their numbers profit from a frame that ours do not have.


# %%
def load(name):
    """A trained detector by its name, or None."""
    return chapters.detector(name, profile, device, seed, retrain, models)


def measure(detector, data, **options):
    """Inter-Intra's protocol: five points, centred ridge, all labels."""
    chosen = {"labels": None, "regressor": "inter-intra", "seed": seed, **data.five}
    chosen |= options
    return evaluation.evaluate_detector(detector, data.test, data.fit, **chosen)


detectors, reports, missing = {}, {}, []


def fill(id, row, name, ours=""):
    """One row of a table: measure a detector on both data sets, or note that it is missing."""
    if name not in detectors:
        detectors[name] = load(name)
    if detectors[name] is None:
        missing.append(f"{id.split('/')[1]}: {ours or row} (`{name}`)")
        return
    for column, data in columns.items():
        if (name, column) not in reports:
            reports[name, column] = measure(detectors[name], data, untrained=False)
        report = reports[name, column]
        facts = report.facts() | {"dataset": data.name, "model": name}
        record.number(
            id, ours or row, column, report.forward_nme, facts, report.forward_std
        )


# %% [markdown]
# ## Three baselines
#
# Before any detector: the mean shape, an untrained network under the same regressor, and a network that is trained on the labels alone.

# %%
untrained = methods.InterIntra(
    **{
        **settings["inter-intra"],
        "adaptation": "scratch",
        "n_landmarks": 10,
        "seed": seed,
        "device": device,
    }
).untrained()
baselines = {}
for column, data in columns.items():
    supervised = evaluation.SupervisedBaseline(
        seed=seed, device=str(where), steps=400 if profile != "smoke" else 5
    )
    report = measure(untrained, data, untrained=False, supervised=supervised)
    found = [report.mean_shape_nme, report.forward_nme, report.supervised_nme]
    baselines[column] = dict(zip(tables.BASELINES, found, strict=True))
    for row, value in baselines[column].items():
        facts = report.facts() | {"dataset": data.name}
        for id in ("inter-intra/table-1", "inter-intra/table-3"):
            record.number(id, row, column, value, facts)
pd.DataFrame(baselines).round(2)

# %% [markdown]
# ## Table I: what do the stranger and the way back add?
#
# Four variants: the *baseline*, a single drawing from view to view; with the stranger (*+ inter*); with the way back (*+ cycle*); and with both (*all*). The paper's rows are trained on a
# core that was trained on labelled people, and so are ours in the same rows; their core saw drawn people. In the profile `laptop` every variant has two terms beside the paper's
# loss, equivariance and separation: with that loss alone landmarks still jump about after as few steps as two cores can make. They may take from the differences between the rows. The rows *ours: ... from scratch* are the experiment that the paper
# announces and leaves out. They are the ones that have seen no label at all.

# %%
names = {"baseline": "baseline", "inter": "+inter", "cycle": "+cycle", "all": "all"}
assert set(names) == set(VARIANTS)
for variant, row in names.items():
    fill("inter-intra/table-1", f"{row} K=10", f"ii-faces-posed-k10-{variant}")
for k in (30, 50):
    fill("inter-intra/table-1", f"all K={k}", f"ii-faces-posed-k{k}-all")
for variant, row in names.items():
    fill(
        "inter-intra/table-1",
        row,
        f"ii-faces-posed-k10-{variant}-scratch",
        ours=f"{tables.OURS}{row} K=10, from scratch",
    )

# %% tags=["hide-input", "nbval-ignore-output"]
recorded = tables.recorded()
tables.styled("inter-intra/table-1", recorded, record.path)


# %% tags=["hide-input"]
def read_ablation(ending, words):
    """The order of the variants in both columns, in words; nothing where models are missing."""
    sentences = []
    printed = {
        row["row"]: row["values"] for row in tables.load("inter-intra/table-1")["rows"]
    }
    for column, data in columns.items():
        found = {
            row: reports[f"ii-faces-posed-k10-{variant}{ending}", column].forward_nme
            for variant, row in names.items()
            if (f"ii-faces-posed-k10-{variant}{ending}", column) in reports
        }
        if len(found) < 2:
            continue
        level = baselines[column][tables.BASELINES[0]]
        order = sorted(found, key=found.get)
        paper = sorted(found, key=lambda row: printed[f"{row} K=10"][column])
        sentences.append(
            f"{words}, on {data.name.split(':')[-1]}: "
            + ", ".join(f"{row} {found[row]:.2f} %" for row in order)
            + f", from best to worst, where the mean shape has {level:.2f} %; "
            + (
                "the order is the paper's."
                if order == paper
                else f"the paper's order is {', '.join(paper)}."
            )
        )
    return sentences


text = read_ablation("", "On the core that knows people") + read_ablation(
    "-scratch", "From scratch"
)
both = [f"ii-faces-posed-k10-all{ending}" for ending in ("", "-scratch")]
if text and all((name, column) in reports for name in both for column in columns):
    compared = "; ".join(
        f"{reports[both[1], column].forward_nme:.2f} % on {data.name.split(':')[-1]}, where it has "
        f"{reports[both[0], column].forward_nme:.2f} % on the core"
        for column, data in columns.items()
    )
    text.append(f"From scratch, without any label, the full model has {compared}.")
sizes = {k: f"ii-faces-posed-k{k}-all" for k in (10, 30, 50)}
sizes = {k: name for k, name in sizes.items() if (name, "MAFL") in reports}
if len(sizes) > 1:
    printed = {
        row["row"]: row["values"] for row in tables.load("inter-intra/table-1")["rows"]
    }
    for column, data in columns.items():
        ours = ", ".join(
            f"K = {k} {reports[name, column].forward_nme:.2f} %"
            for k, name in sizes.items()
        )
        theirs = ", ".join(f"{printed[f'all K={k}'][column]} %" for k in sizes)
        text.append(
            f"More landmarks, on {data.name.split(':')[-1]}: {ours}; in the paper {theirs}."
        )
if text:
    text.append(
        "That is one training of each. The paper's rows lie within 0.4 points of one another, and it does not say by how much a row changes with the seed; "
        "so a different order of neighbours proves nothing, here or there, before the next section has been read."
    )
else:
    level = baselines["MAFL"][tables.BASELINES[0]]
    text = [
        f"No two variants are in the zoo yet, so there is nothing to compare: only the baselines are filled. The mean shape has {level:.2f} %."
    ]
Markdown(" ".join(text))

# %% tags=["hide-input"]
alarms = {
    f"{name}, {column}": "; ".join(report.warnings)
    for (name, column), report in reports.items()
    if report.warnings
}
if not reports:
    text = "There is no detector whose landmarks could collapse."
elif alarms:
    text = "Warnings: " + "; ".join(
        f"{name}: {words}" for name, words in alarms.items()
    )
else:
    text = "None of these detectors has landmarks that collapse or freeze."
Markdown(text)

# %% [markdown]
# ### Over seeds
#
# How far does a row move when only the seed changes? The baseline and the full model, each trained three times, both with the core that knows people.

# %% tags=["hide-input"]
SEEDS = ("", "-seed1", "-seed2")
differences, seeds = {}, {}
for place, ending in enumerate(SEEDS):
    pair = [f"ii-faces-posed-k10-{variant}{ending}" for variant in ("baseline", "all")]
    for name in pair:
        if name not in detectors:
            detectors[name] = load(name)
        if detectors[name] is None:
            missing.append(f"over seeds: `{name}`")
    if None in [detectors[name] for name in pair]:
        continue
    for variant, name in zip(("baseline", "all"), pair, strict=True):
        for column, data in columns.items():
            if (name, column) not in reports:
                reports[name, column] = measure(detectors[name], data, untrained=False)
            report = reports[name, column]
            facts = report.facts() | {"dataset": data.name, "model": name}
            for letter, kind in (("F", "forward"), ("B", "backward")):
                value = getattr(report, f"{kind}_nme")
                row = f"{variant}, seed {place}"
                record.number(
                    "book/inter-intra-seeds", row, f"{column} {letter}", value, facts
                )
                seeds.setdefault((column, kind), {}).setdefault(variant, []).append(
                    value
                )
for key, values in seeds.items():
    differences[key] = np.subtract(values["all"], values["baseline"])

# %% tags=["hide-input", "nbval-ignore-output"]
(
    tables.styled("book/inter-intra-seeds", None, record.path)
    if seeds
    else Markdown("Nothing to show: no pair of them is in the zoo yet.")
)

# %% tags=["hide-input"]
sentences = [
    f"{column}, {kind}: the full model's error is {values.mean():+.2f} points from the baseline's, lower in {(values < 0).sum()} of {len(values)} trainings; "
    f"the baseline itself moves by {np.ptp(seeds[column, kind]['baseline']):.2f} points with the seed"
    for (column, kind), values in differences.items()
]
if sentences:
    unclear = [
        values
        for key, values in differences.items()
        if abs(values.mean()) < np.ptp(seeds[key]["baseline"])
    ]
    sentences.append(
        f"In {len(unclear)} of {len(differences)} comparisons the difference is smaller than what the seed does to the baseline: there this build cannot tell the two apart"
    )
    sentences.append(
        "Two things are unlike the paper: the terms that all variants share here, and the length of the training, see the budget below"
    )
Markdown(". ".join(sentences) + "." if sentences else "")

# %% [markdown]
# ## Figure 2: without and with the exchange
#
# Sixteen faces twice, in {numref}`fig-ii-faces-landmarks`: above with the landmarks of the baseline, below with those of the full model. The paper's point is that the baseline places
# some landmarks off the face, on hair, neck or collar, and that the full model's stay on one part. As in the paper, a colour means the same
# within the upper half or within the lower half, not across.

# %% mystnb={"figure": {"caption": "Baseline above, full model below (Figure 2)", "name": "fig-ii-faces-landmarks"}, "image": {"alt": "Four rows of eight faces with ten coloured landmarks each: the upper two rows by one detector, the lower two rows the same faces by another"}} tags=["hide-input"]
shown = faces.test.batch(range(16))["image"]
both = {}
for half, variant in {"above": "baseline", "below": "all"}.items():
    options = [f"ii-faces-posed-k10-{variant}{ending}" for ending in ("", "-scratch")]
    both[half] = next((n for n in options if detectors.get(n) is not None), None)
complete = None not in both.values()
used = [detectors[name] if name else untrained for name in both.values()]
figure = figures.landmarks_on_images(
    shown.repeat(2, 1, 1, 1), torch.cat([model.predict(shown) for model in used])
)
facts = {"dataset": faces.name, "model": ", ".join(map(str, both.values()))}
record.picture("inter-intra/figure-2", figure, facts) if complete else figure

# %% tags=["hide-input"]
Markdown(
    "Drawn by: "
    + ", ".join(
        f"{half} {name or 'an untrained network'}" for half, name in both.items()
    )
    + ("." if complete else ". So this is not the paper's figure yet, only its frame.")
)

# %% [markdown]
# ## Table II: how many labels?
#
# One detector, the full model with $K = 10$; regressors fitted on 1, 5, 10, ... labelled pictures. The authors' code takes $n + 1$ of them for $n$ and measures once. We take $n$, and the mean over several random choices. More labelled pictures are drawn for this than for the other tables.

# %%
options = ("ii-faces-posed-k10-all", "ii-faces-posed-k10-all-scratch")
name = next((n for n in options if detectors.get(n) is not None), None)
model = detectors[name] if name else untrained
fitted, tested = (
    evaluation.detect(model, faces.pool),
    evaluation.detect(model, faces.test),
)
groups = evaluation.subset_groups(
    faces.test.info, faces.five["subset"], tested.truth.shape[1]
)
norm = evaluation.normalising_lengths(
    tested.truth, faces.test.info, tested.size, faces.five["normaliser"]
)
efficiency = evaluation.sample_efficiency(
    fitted.found,
    evaluation.select_points(fitted.truth, groups),
    tested.found,
    evaluation.select_points(tested.truth, groups),
    norm,
    repeats=settings["repeats"],
    seed=seed,
    regressor="inter-intra",
    size=tested.size,
)
if name:
    # The paper's column is of a model on a core; one from scratch has a column of its own.
    scratch = name.endswith("-scratch")
    column = f"{tables.OURS}all K=10, from scratch" if scratch else "all K=10"
    for line in efficiency.itertuples():
        facts = {
            "dataset": faces.name,
            "fingerprint": faces.test.fingerprint,
            "model": name,
            "n_fit": line.labels,
            "n_test": len(norm),
            "repeats": line.repeats,
            "regressor": "inter-intra",
            "seeds": [seed],
        }
        std = None if np.isnan(line.std) else line.std
        record.number(
            "inter-intra/table-2", f"n={line.n}", column, line.nme, facts, std
        )
efficiency.round(2)

# %% tags=["hide-input", "nbval-ignore-output"]
tables.styled("inter-intra/table-2", recorded, record.path)

# %% mystnb={"figure": {"caption": "Error against labels (Table II)", "name": "fig-ii-faces-labels"}, "image": {"alt": "Two falling curves of error against the number of labelled images on logarithmic axes, that of this build with a band of one deviation and the paper's, and the mean shape"}} tags=["hide-input"]
printed = {
    int(row["row"].removeprefix("n=").replace("all", "18997")): (
        row["values"]["all K=10"],
        None,
    )
    for row in tables.load("inter-intra/table-2")["rows"]
}
figures.sample_efficiency(
    efficiency, printed, name=f"{faces.name} ({name or 'untrained'})"
)

# %% tags=["hide-input"]
first, last = efficiency.iloc[0], efficiency.iloc[-1]
words = f"With a single label the error is {first.nme:.1f} %, with all {last.labels:.0f} it is {last.nme:.2f} %"
if not name:
    words += " – of an *untrained* network, since no full model is in the zoo yet; so it is not in the table"
Markdown(
    words
    + ". With one picture the ridge on centred data has nothing to fit: the answer is the one annotated shape, whatever the detector says."
)

# %% [markdown]
# ## Table III: which loss?
#
# The full model with one of its losses left out, and with a deeper perceptual network. The paper's two networks, VGG-16 and VGG-19, were trained on ImageNet. Ours have learned to colour drawn
# faces, both in the same way, so that the row *VGG-19* differs in depth alone (with ImageNet's: Exercise 1). They see grey: with $\mathcal{L}_P$ alone nothing asks for the right colours.

# %%
ablation = {
    "VGG-19 K=10": "ii-faces-posed-k10-vgg19",
    "L_R only K=10": "ii-faces-posed-k10-reconstruction",
    "L_P only K=10": "ii-faces-posed-k10-perceptual",
    "all K=10": "ii-faces-posed-k10-all",
}
for row, name in ablation.items():
    fill("inter-intra/table-3", row, name)

# %% tags=["hide-input", "nbval-ignore-output"]
tables.styled("inter-intra/table-3", recorded, record.path)

# %% tags=["hide-input"]
found = {
    row: reports[name, "MAFL"].forward_nme
    for row, name in ablation.items()
    if (name, "MAFL") in reports
}
paper = {
    row["row"]: row["values"]["MAFL"]
    for row in tables.load("inter-intra/table-3")["rows"]
}
if len(found) > 1:
    words = (
        f"From best to worst, on {faces.name.split(':')[-1]}, we find "
        + ", ".join(f"{row} {found[row]:.2f} %" for row in sorted(found, key=found.get))
        + f"; the paper's order is {', '.join(sorted(found, key=paper.get))}."
    )
else:
    words = "The models of this table are not in the zoo yet."
words += f" In the paper the pixels alone are far behind, {paper['L_R only K=10']} % against {paper['all K=10']} %."
if {"L_R only K=10", "all K=10"} <= set(found) and ("MAFL", "forward") in seeds:
    behind = found["L_R only K=10"] - found["all K=10"]
    several = np.ptp(seeds["MAFL", "forward"]["all"])
    words += f" Here they are {behind:+.2f} points from the full model, which itself moves by {several:.2f} with the seed"
    words += ". Both have equivariance and separation beside their losses, which look at no drawing."
Markdown(words)

# %% [markdown]
# ## Learning
#
# A detector keeps the history of its training. {numref}`fig-ii-faces-learning` shows the error of those that are there, one of each kind, on validation pictures with 68 points, as it was measured along the way.

# %% mystnb={"figure": {"caption": "Error while the detectors learned", "name": "fig-ii-faces-learning"}, "image": {"alt": "Learning curves of the variants that are in the zoo, beside dashed lines for the mean shape and an untrained network on turned faces"}} tags=["hide-input"]
plain = evaluation.evaluate_detector(
    untrained,
    posed.test,
    posed.fit,
    labels=settings["labels"],
    repeats=1,
    seed=seed,
    untrained=False,
)
levels = {"mean shape": plain.mean_shape_nme, "untrained network": plain.forward_nme}
histories = {
    name.removeprefix("ii-faces-posed-"): model.history_
    for name, model in detectors.items()
    if model is not None
    and "-seed" not in name
    and any("forward_nme" in entry for entry in model.history_)
}
figures.learning_curves(histories, levels, ylabel="forward NME (%)", log=False)

# %% tags=["hide-input"]
budget = {
    "the authors' code": {
        "pairs seen": f"{82_500 * 32:,}",
        "image": 128,
        "channels": 256,
        "adapted from": "people, MPII",
        "time": "not stated",
    }
}
for name, model in detectors.items():
    if model is None:
        continue
    end = model.history_[-1] if model.history_ else {}
    budget[name] = {
        "pairs seen": f"{end.get('images_seen', 0):,}",
        "image": model.image_size,
        "channels": model.width,
        "adapted from": model.core or "nothing",
        "time": f"{end.get('seconds', 0) / 60:.0f} min",
    }
pd.DataFrame(budget).T.rename_axis("budget")

# %% [markdown]
# The first row is what the authors' command evaluates, epoch 33 of 2,500 steps of 32 pairs; the text does not say how long it trained.
#
# ## On photographs
#
# Frames of YouTube videos with 68 points, split by subject, as in [IMM on faces](imm_faces.ipynb): trained on the photographs of the training subjects, measured on people that no
# network has seen, both methods under one protocol. What was recorded when it was measured is shown; the pictures may not be, and the weights not be passed on. The row with a core starts from the
# pose network that was trained on *drawn* people.

# %% tags=["hide-input", "nbval-ignore-output"]
PHOTOGRAPHS = "book/faces-ytf"
photographs = [entry for entry in recorded if entry["id"] == PHOTOGRAPHS]
tables.styled(PHOTOGRAPHS, photographs) if photographs else Markdown(
    "Nothing has been recorded yet."
)

# %% tags=["hide-input"]
forward = {
    entry["row"].removeprefix("ours: "): entry["value"]
    for entry in photographs
    if entry["column"] == "forward"
}
exchange = {row: value for row, value in forward.items() if "Inter-Intra" in row}
drawn = {row: value for row, value in forward.items() if row.startswith("IMM")}
if exchange and drawn:
    best, other = min(exchange, key=exchange.get), min(drawn, key=drawn.get)
    text = (
        f"The best of Inter-Intra ({best}) has {exchange[best]:.2f} %, the best of IMM ({other}) {drawn[other]:.2f} %, the mean shape "
        f"{forward['mean shape']:.2f} %. These are trainings of minutes to hours on two cores, not of equal length: the provenance behind each number says how long."
    )
else:
    text = "Inter-Intra has not been recorded yet. The command is `python workflow/record.py --data coco:DATA/faces-ytf --method inter-intra`."
Markdown(text)

# %% [markdown]
# ## What is missing

# %% tags=["hide-input"]
listed = "\n".join(f"- {entry}" for entry in dict.fromkeys(missing)) or "- nothing"
Markdown(
    "Rows that this run could not fill, because there was no model for them (in brackets the name under which one is looked for):\n\n"
    + listed
)

# %% [markdown]
# And what no run can fill: the paper mentions standard deviations in Table II and a training from scratch, and prints neither.
#
# ## Exercises
#
# ```{admonition} Exercise 1
# :class: exercise
# Repeat the row *VGG-19* of Table III with the paper's own network, which was trained on ImageNet and has to be fetched once.
# ```
#
# ````{dropdown} Solution
# Train into a folder `my-models`, first the core, then the model, under the names that this page looks for:
# ```bash
# ulm zoo train pose-core-people --out my-models/pose-core-people
# ulm fit --method inter-intra --data procedural:faces-posed --out my-models/ii-faces-posed-k10-vgg19 \
#   -p perceptual timm/vgg19.tv_in1k -p adaptation projection -p core my-models/pose-core-people
# ulm run notebooks/inter_intra_faces -p models my-models
# ```
# ````
#
# ```{admonition} Exercise 2
# :class: exercise
# Measure a detector with the regressor of IMM, `measure(model, faces, regressor="imm")`. How much of the difference between two rows of Table I could be the
# protocol alone?
# ```
#
# ````{dropdown} Solution
# The rows of Jakab et al. were fitted without an intercept, those of Sanchez and of Inter-Intra with one. Compare the change that you find with the differences between these
# rows, some of which are a tenth of a point.
# ````
#
# ## You have seen
#
# - ✓ Tables I, II and III of the paper beside what this build could measure, and three baselines;
# - ✓ which cells are empty, and why;
# - ✓ that a core trained on labelled people is not the same as no labels.
#
# Run it again: `ulm run notebooks/inter_intra_faces -p profile paper -p data_root DATA`.
