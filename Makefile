# make serve   set everything up and serve a real gated model on port 8000
# make test    set everything up and run the tests
# make lint    set everything up, check style and types
#
# PYTHON=… picks the interpreter (3.11 or newer), ARGS=… goes to `sluice serve` or to pytest.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help serve test lint format clean

VENV := .venv
BIN := $(VENV)/bin
PINS := .ci/constraints.txt
PYTHON ?= $(firstword $(foreach name,python3.11 python3.12 python3.13 python3,$(shell $(name) -c 'import sys; sys.version_info >= (3, 11) and print("$(name)")' 2>/dev/null)))
KERNEL_SOURCES := $(shell find models/kernels -name '*.cpp' -o -name '*.h' -o -name 'CMakeLists.txt')
INSTALL := env SLUICE_REQUIRE_KERNELS=1 PIP_CONSTRAINT=$(PINS) PIP_BUILD_CONSTRAINT=$(PINS) PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip install --quiet

help:
	@sed -n 's/^# \{0,1\}//p' Makefile | head -n 5

$(BIN)/python:
	@if [ -z "$(PYTHON)" ]; then \
	  echo 'Sluice needs Python 3.11 or newer (with its venv module). Install one, or name it: make PYTHON=/path/to/python3 …' >&2; exit 1; fi
	@echo "Setting up $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV) || { \
	  echo 'Could not make a virtual environment. On Debian and Ubuntu: apt-get install python3-venv' >&2; rm -rf $(VENV); exit 1; }

define NEED_COMPILER
@command -v $${CXX:-c++} >/dev/null || command -v g++ >/dev/null || command -v clang++ >/dev/null || { \
  echo 'No C++ compiler was found: the kernels cannot be built. On Debian and Ubuntu: apt-get install g++' >&2; exit 1; }
endef

# A stamp says what was installed from which inputs, so that a second run starts at once.
INPUTS := pyproject.toml $(PINS) $(KERNEL_SOURCES)

$(VENV)/.serve-installed: $(INPUTS) | $(BIN)/python
	$(NEED_COMPILER)
	@echo 'Installing the server and compiling its kernels (the first time takes a minute)'
	@$(INSTALL) --editable '.[console,images]'
	@touch $@

# It holds all that serving needs, so that one compilation serves both.
$(VENV)/.dev-installed: $(INPUTS) | $(BIN)/python
	$(NEED_COMPILER)
	@echo 'Compiling the kernels and installing what the tests need (torch is large: this takes a few minutes)'
	@$(INSTALL) --editable '.[dev]'
	@touch $@ $(VENV)/.serve-installed

serve: $(VENV)/.serve-installed
	@$(BIN)/sluice serve $(ARGS)

# Arithmetic, control and what runs in virtual time, on all cores; then the server, alone, since what it does is timed.
APART := tests/models tests/service/control tests/loadtest/simulation \
  tests/service/engine/test_dispatch.py tests/service/commands/test_simulate.py

test: $(VENV)/.dev-installed
ifdef ARGS
	@$(BIN)/python -m pytest $(ARGS)
else
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile $(APART)
	@$(BIN)/python -m pytest $(addprefix --ignore=,$(APART))
endif

lint: $(VENV)/.dev-installed
	@$(BIN)/ruff check models service loadtest tests
	@$(BIN)/ruff format --check models service loadtest tests
	@$(BIN)/mypy

format: $(VENV)/.dev-installed
	@$(BIN)/ruff check --fix models service loadtest tests
	@$(BIN)/ruff format models service loadtest tests

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache
