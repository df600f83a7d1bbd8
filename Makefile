# make demo        reconstruct examples/room and compare with its ground truth
# make test        everything that has to be green: style, types, all tests
# make test-fast   the same without the slow tests
# Both install first. PYTHON=python3.12, VENV=folder and TORCH_INDEX=https://download.pytorch.org/whl/cpu are honoured,
# and WORKERS=4 for the number of processes that run the tests (each may take 3 GB).

VENV ?= .venv
PYTHON ?= python3
TORCH_INDEX ?=
WORKERS ?= 2
export PYTHON TORCH_INDEX

BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo install test test-fast test-tools lint clean
.DEFAULT_GOAL := demo

demo: install
	$(BIN)/python -m pipelines.demo

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt tools/install.sh
	tools/install.sh $(VENV)
	touch $@

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test-tools:
	tools/install.sh $(VENV) test-tools

test: lint test-tools
	$(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile

test-fast: lint test-tools
	$(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile -m "not slow"

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache runs
