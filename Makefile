# make setup, demo, test, lint, bench, bench-gpu; ARGS is passed on: make demo ARGS="--audio my/sounds", make test ARGS=tests/nn
# PYTHON=python3.12 make setup chooses the interpreter; VENV is the environment's folder; WORKERS run the tests side by side.
VENV ?= .venv
BIN = $(VENV)/bin
ARGS ?=
WORKERS ?= 2
export VENV
# Tests run side by side, and threads of each beside that would wait for each other.
test matrix: export OMP_NUM_THREADS := $(or $(OMP_NUM_THREADS),1)

.PHONY: help setup demo test lint format bench bench-gpu lock matrix

help:
	@echo "make setup    the environment in $(VENV), from requirements.lock (done by the others when needed)"
	@echo "make demo     train, tokenize and probe on sounds it makes, or on yours: ARGS='--audio FOLDER --labels CSV'"
	@echo "make test     formatting, lint, types and tests"
	@echo "make lint     formatting, lint and types"
	@echo "make format   let ruff format and mend the code"
	@echo "make bench    a training step, the front end and the quantizer, each beside a named peer; ARGS go to the first"
	@echo "make bench-gpu    clips a second on a GPU beside timm, and the share of its matrix products that is used"
	@echo "make matrix   the tests on every Python from 3.10 to 3.13 that is there"
	@echo "make lock     choose new versions for requirements.lock"

setup:
	@sh scripts/setup.sh

demo: setup
	@$(BIN)/bridle demo $(ARGS)

lint: setup
	@$(BIN)/ruff format --check --quiet . || { echo "lint: formatting differs, run: make format" >&2; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy

test: lint
	@$(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile $(ARGS)
	@echo "make test: formatting, lint, types and tests passed"

format: setup
	@$(BIN)/ruff check --fix --quiet .
	@$(BIN)/ruff format .

bench: setup
	@sh scripts/peers.sh
	@PYTHONPATH=peers $(BIN)/python benchmarks/train_step.py $(ARGS)
	@$(BIN)/python benchmarks/fbank.py
	@PYTHONPATH=peers $(BIN)/python benchmarks/quantizer.py

bench-gpu: setup
	@sh scripts/peers.sh
	@PYTHONPATH=peers $(BIN)/python benchmarks/gpu_step.py $(ARGS)

lock: setup
	@sh scripts/lock.sh

matrix:
	@WORKERS=$(WORKERS) sh scripts/matrix.sh $(ARGS)
