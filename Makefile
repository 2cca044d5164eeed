# The one entry to everything. `make` alone lists the targets.
# Needs python 3.11 or newer, make and git; node for `make check` (pyright). All else is fetched into .uv and .venv.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
ARGS ?=
NAME ?=

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.synced

export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

##@ Try it
.PHONY: demo
demo: $(STAMP)  ## run a hub, sites and hosts on this machine, with failures, and look on
	$(BIN)/python scripts/demo.py $(ARGS)

.PHONY: dev
dev: $(STAMP)  ## run a hub and agents to play with until Ctrl-C
	$(BIN)/python scripts/dev.py $(ARGS)

##@ Work on it
.PHONY: setup
setup: $(STAMP)  ## make .venv with everything locked in uv.lock (the other targets do so by themselves)

$(STAMP): pyproject.toml uv.lock scripts/setup.sh
	@PYTHON="$(PYTHON)" VENV="$(VENV)" sh scripts/setup.sh
	@touch $@

.PHONY: test
test: $(STAMP)  ## run the tests; ARGS go to pytest, such as ARGS="-k rollout -x"
	$(BIN)/pytest $(ARGS)

.PHONY: check
check: $(STAMP)  ## everything CI runs, in order, up to the first failure; ARGS="--list" names the steps
	$(BIN)/python scripts/check.py $(ARGS)

.PHONY: format
format: $(STAMP)  ## format the code and put right what ruff can
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

.PHONY: bench
bench: $(STAMP)  ## measure and rewrite the tables of docs/benchmarks.md; NAME picks one group
	@$(BIN)/python scripts/bench.py $(NAME)

.PHONY: fuzz
fuzz: $(STAMP)  ## look for inputs that break what takes bytes from strangers; ARGS="--seconds 600 delta"
	$(BIN)/python scripts/fuzz.py $(ARGS)

.PHONY: docs
docs: $(STAMP)  ## build the documentation into docs/_build/html
	$(BIN)/sphinx-build -W --keep-going -b html docs docs/_build/html

.PHONY: openapi
openapi: $(STAMP)  ## write docs/reference/openapi.json anew after a change of the operator API
	$(BIN)/python scripts/write_openapi.py

.PHONY: lock
lock:  ## resolve the dependencies anew into uv.lock; ARGS="--upgrade" takes newer releases
	@uv="$$(PYTHON="$(PYTHON)" sh scripts/setup.sh --print-uv)" && "$$uv" lock $(ARGS)

##@ Other
.PHONY: clean
clean:  ## remove what was built, and caches (.venv and .uv stay)
	rm -rf build dist docs/_build docs/reference/generated examples/*/build
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -not -path './.venv/*' -not -path './.uv/*' -prune -exec rm -rf {} +

.PHONY: help
help:  ## list the targets
	@awk 'BEGIN { FS = ":.*## " } \
	  /^##@ / { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile
