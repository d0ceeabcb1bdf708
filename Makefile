# make book          execute every notebook, build the book, print where to open it
# make test          tests, determinism of the notebooks, pairs, lint, types
# make lab           JupyterLab with the .py/.ipynb pairing on
# make status        what of the four papers has numbers
# make sync          write the .ipynb of every notebooks/*.py, without outputs
# make clean         remove what was built (.venv stays)
#
# Variables: PROFILE=smoke|laptop|paper  CORES=all  DATA_ROOT=folder of real data sets  DEVICE=auto
#            SNAKEFLAGS='--executor slurm ...'  PYTHON=python3.11  REPOSITORY_URL=for the Colab and Binder buttons
PROFILE ?= laptop
CORES ?= all
DATA_ROOT ?=
DEVICE ?= auto
SNAKEFLAGS ?=
PYTHON ?=
REPOSITORY_URL ?=
export PYTHON REPOSITORY_URL SNAKEFLAGS

BIN := .venv/bin
STAMP := .venv/.installed
BUILD := $(BIN)/python workflow/build.py
# Tests of one file stay in one process, each process with one thread; more than four would only need more memory.
WORKERS := -n $(if $(filter all,$(CORES)),auto,$(CORES)) --maxprocesses 4 --dist loadfile

.PHONY: book test lab status sync clean
.DEFAULT_GOAL := book

$(STAMP): requirements.lock pyproject.toml
	@sh workflow/environment.sh

book: $(STAMP)
	@$(BUILD) book --profile "$(PROFILE)" --cores "$(CORES)" --data-root "$(DATA_ROOT)" --device "$(DEVICE)"

test: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/pytest $(WORKERS)
	$(BUILD) book --trial --profile smoke --cores "$(CORES)"
	$(BUILD) nbval --cores "$(CORES)"
	$(BIN)/pytest -m book

lab: $(STAMP)
	$(BIN)/jupyter lab

status: $(STAMP)
	@$(BIN)/ulm status

sync: $(STAMP)
	@$(BUILD) sync

clean:
	rm -rf _build .snakemake
