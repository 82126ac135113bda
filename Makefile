# `make quickstart` and `make test` each make `.venv` first and need nothing else.
PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/.installed
COMPILERS := $(VENV)/compilers

.PHONY: quickstart test lint clean

quickstart: $(STAMP)
	$(VENV)/bin/vlc train --config configs/quickstart.py --workdir runs/quickstart
	$(VENV)/bin/vlc eval --workdir runs/quickstart

# The TPU compiler that this jax names runs without a TPU. It lies outside the environment, where JAX would look for a TPU at every start.
test: lint $(COMPILERS)
	PYTHONPATH=$(COMPILERS) $(VENV)/bin/python -m pytest -n auto

$(COMPILERS): $(STAMP)
	$(VENV)/bin/python -m pip install --quiet --no-deps --upgrade --target $@ "$$($(VENV)/bin/python -c \
	  "from importlib.metadata import requires; print(*[r.split(';')[0] for r in requires('jax') if r.startswith('libtpu')])")"
	@touch $@

lint: $(STAMP)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/lint-imports
	$(VENV)/bin/pyright --pythonpath $(VENV)/bin/python

$(STAMP): setup.py pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 12))' || { \
	  echo "vlc needs Python 3.12 or newer, but $$($(PYTHON) --version 2>&1) is what '$(PYTHON)' starts here."; \
	  echo "Install Python 3.12, or name one: make $(or $(MAKECMDGOALS),quickstart) PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --upgrade pip
	$(VENV)/bin/python -m pip install --quiet --editable '.[dev,notebooks]'
	@touch $(STAMP)

clean:
	rm -rf $(VENV) runs
