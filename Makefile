# `make help` lists the targets. ARGS is passed on: make demo ARGS="--audio my/sounds", make test ARGS=tests/nn
# PYTHON=python3.12 make setup selects the interpreter; VENV is the environment's folder; WORKERS is the number of test processes.
VENV ?= .venv
BIN = $(VENV)/bin
ARGS ?=
WORKERS ?= 2
MINUTES ?= 30
export VENV
# Tests run in parallel processes: more threads in each would only compete for the cores.
test tests matrix adapters soak: export OMP_NUM_THREADS := $(or $(OMP_NUM_THREADS),1)

.PHONY: help setup demo test tests lint style types format bench bench-gpu gpu-check lock matrix adapters docs soak

help:
	@echo "make setup    create the environment in $(VENV) from requirements.lock (other targets do it when needed)"
	@echo "make demo     train, tokenize and probe on generated sounds, or on yours: ARGS='--audio FOLDER --labels CSV'"
	@echo "make test     check formatting, lint and types, and run the tests"
	@echo "make lint     check formatting, lint and types"
	@echo "make format   format the code and apply lint fixes"
	@echo "make bench    time a training step, the front end and the quantizer against peers (ARGS: options of the first)"
	@echo "make bench-gpu    measure clips/s and utilization on a GPU, compared with timm"
	@echo "make gpu-check    test and measure on a GPU, with a log of each section (ARGS: sections, or --dry-run for a CPU)"
	@echo "make matrix   run the tests on every installed Python from 3.10 to 3.13"
	@echo "make adapters    test the adapters with X-ARES, mteb and s3prl, and examples/ray with Ray, beside the environment"
	@echo "make docs     build the documentation site in build/docs/html (ARGS: options of Sphinx, such as -b linkcheck)"
	@echo "make soak     attack the package at random for MINUTES=30: kills, full disks, damaged and hostile files [SEED=n];"
	@echo "              then make gpu-check ARGS=--dry-run"
	@echo "make lock     update the versions in requirements.lock"

setup:
	@sh scripts/setup.sh

demo: setup
	@$(BIN)/bridle demo $(ARGS)

lint: style types

style: setup
	@$(BIN)/ruff format --check --quiet . || { echo "lint: formatting differs, run: make format" >&2; exit 1; }
	@$(BIN)/ruff check --quiet .

types: setup
	@$(BIN)/mypy

tests: setup
	@$(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

test: style
	@$(MAKE) --no-print-directory -j 2 types tests  # mypy needs one core
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

gpu-check: setup
	@scripts/gpu_check.sh $(ARGS)

lock: setup
	@sh scripts/lock.sh

matrix:
	@WORKERS=$(WORKERS) sh scripts/matrix.sh $(ARGS)

adapters: setup
	@sh scripts/adapters.sh $(ARGS)

docs: setup
	@sh scripts/docs.sh $(ARGS)

soak: setup
	@$(BIN)/python tests/soak --minutes $(MINUTES) $(if $(SEED),--seed $(SEED)) $(ARGS)
	@scripts/gpu_check.sh --dry-run
