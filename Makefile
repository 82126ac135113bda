# `make quickstart` and `make test` each make `.venv` first and need nothing else.
PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/.installed
COMPILERS := $(VENV)/compilers

.PHONY: quickstart test lint clean

quickstart: $(STAMP)
	$(VENV)/bin/vlc train --config configs/quickstart.py --workdir runs/quickstart
	$(VENV)/bin/vlc eval --workdir runs/quickstart

# The compilers for TPU and GPU that this jax names run without either. They lie outside the environment, where JAX would
# look for such devices at every start.
test: lint $(COMPILERS)
	PYTHONPATH=$(COMPILERS) $(VENV)/bin/python -m pytest -n auto --dist worksteal

$(COMPILERS): $(STAMP)
	$(VENV)/bin/python -m pip install --quiet --no-deps --upgrade --target $@ $$($(VENV)/bin/python -c \
	  "import jax; from importlib.metadata import requires; \
	  tpu = [r.split(';')[0] for r in requires('jax') if r.startswith('libtpu')]; \
	  print(*tpu, *[f'jax-cuda13-{part}==' + jax.__version__ for part in ('plugin', 'pjrt')])")
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
