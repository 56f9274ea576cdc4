# Every target does its own set-up: it makes .venv on first use, which also sees the
# site packages of PYTHON, so that a GraphNeT or icetray installed there is found.
#
#   make test                              the tests of every change, in two processes;
#                                          with GraphNeT where it is found
#   make test-all                          those marked `slow`, too
#   make test WORKERS=8                    so many processes; 0 is one, without xdist
#   make test GRAPHNET=../graphnet         adds GraphNeT from whatever pip can install:
#   make test GRAPHNET="-e ../graphnet"    a folder, a wheel, a git URL
#   make test PYTHON=python3.12            another Python (3.10 to 3.13)
#   make test PIP_FLAGS="--find-links DIR" options for every `pip install`: where to
#                                          find a CPU-only torch, ready-made wheels, ...
#   make test PYTEST_FLAGS="-k losses"     options for pytest
#   make demo DEMO_FLAGS="--events 500"    options for examples 01 and 02
#   make demo TRAIN_FLAGS="--events 5000"  options for example 03

PYTHON ?= python3
GRAPHNET ?=
PIP_FLAGS ?=
PYTEST_FLAGS ?=
WORKERS ?= 2
DEMO_FLAGS ?=
TRAIN_FLAGS ?=
export GRAPHNET PIP_FLAGS

PY := .venv/bin/python
# One thread of torch for each process.
PYTEST := OMP_NUM_THREADS=1 $(PY) -m pytest -n $(WORKERS) --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help setup test test-all demo demo-graphnet lint format docs docs-serve clean

help:  ## say what can be made
	@sed -n 's/^#   //p; s/^#$$//p' Makefile
	@sed -n 's/^\([a-z-]*\):.*## /  make \1: /p' Makefile

setup:  ## make or update .venv; at once where nothing changed
	@$(PYTHON) tools/setup_venv.py test dev

test: setup  ## the tests of every change: all but those marked slow
	$(PYTEST) -m "not slow" $(PYTEST_FLAGS)

test-all: setup  ## all tests
	$(PYTEST) $(PYTEST_FLAGS)

demo: setup  ## simulate, fit, draw, train for three minutes, reconstruct, compare
	$(PY) examples/02_simulated_events.py $(DEMO_FLAGS)
	$(PY) examples/03_train_and_reconstruct.py $(TRAIN_FLAGS)

demo-graphnet: setup  ## train a small model with GraphNeT on simulated events
	$(PY) examples/01_train_deepice_graphnet.py $(DEMO_FLAGS)

lint: setup  ## linters and type checker
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

format: setup  ## put the code into its form
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

docs: setup  ## the documentation as a site in build/site; broken links are errors
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict --quiet

docs-serve: setup  ## show the documentation at http://127.0.0.1:8000 while you write it
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs serve

clean:  ## remove .venv and all caches
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
