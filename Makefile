# Every verb does its own set-up. `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
EDITORS := $(VENV)/.editors

.PHONY: help setup demo check test test-together test-alone test-editors test-all soak bench clean
.NOTPARALLEL:

help:
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

setup: $(STAMP) ## make .venv with everything, test dependencies included

$(STAMP): pyproject.toml constraints-cpu.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "starfill needs Python 3.11 or newer: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints-cpu.txt --editable . --group test
	@touch $(STAMP)

$(EDITORS): $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints-cpu.txt --group editors
	@touch $@

demo: $(STAMP) ## see ghost text appear: a real server, a real engine, the built-in model
	@$(BIN)/python -m editors.demo

check: $(STAMP) ## formatting, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

test: check test-together test-alone ## all but what is slow or needs a GPU or an editor

# What no clock decides, the longest first.
TOGETHER := tests/kernels tests/engine tests/training tests/property tests/unit tests/gpu
test-together: $(STAMP)
	$(BIN)/python -m pytest -m "not slow" -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder $(TOGETHER)

# What has to be answered in time.
ALONE := tests/protocol tests/security
test-alone: $(STAMP)
	$(BIN)/python -m pytest -m "not slow" $(ALONE)

test-editors: $(EDITORS) ## end to end in real editors, which it installs into .editors
	$(BIN)/python -m tests.editors.programs
	$(BIN)/python -m pytest -n logical --maxprocesses 2 --dist worksteal tests/editors -k "not vscode"
	$(BIN)/python -m pytest tests/editors -k vscode

test-all: $(EDITORS) check ## everything, the slow tests too; a missing editor is an error
	$(BIN)/python -m tests.editors.programs
	STARFILL_TEST_EDITORS_REQUIRED=1 $(BIN)/python -m pytest

MINUTES ?= 60
soak: $(STAMP) ## an hour of typing with cancels and a kill every minute (MINUTES=60), then cancel storms
	$(BIN)/python -m tests.harness.soak --minutes $(MINUTES) --out out/soak.json
	$(BIN)/python -m pytest tests/protocol/test_storm.py

bench: $(STAMP) ## the GPU kit at toy sizes on this machine
	$(BIN)/python -m benchmarks.gpu --part kernels --part models --part runner --part peers --toy --out out/bench

clean: ## remove what the other verbs made
	rm -rf $(VENV) .editors out .mypy_cache .ruff_cache .pytest_cache .hypothesis
