# `make quickstart` and `make test` each make `.venv` first and need nothing else.
PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/.installed
COMPILERS := $(VENV)/compilers

.PHONY: quickstart test test-all lint peers compilers clean

quickstart: $(STAMP)
	$(VENV)/bin/vlc train --config configs/quickstart.py --workdir runs/quickstart
	$(VENV)/bin/vlc eval --workdir runs/quickstart

test: lint
	$(VENV)/bin/python -m pytest -n auto --dist worksteal

# What takes longer as well: programs compiled for TPUs and GPUs, runs of several processes, and, where `make peers` has
# made their environment, the libraries that ours is compared with.
test-all: test $(COMPILERS)
	PYTHONPATH=$(COMPILERS) $(VENV)/bin/python -m pytest -n auto --dist worksteal -m slow

# The compilers for TPU and GPU that this jax names run without either. They lie outside the environment, where JAX would
# look for such devices at every start.
compilers: $(COMPILERS)

$(COMPILERS): $(STAMP)
	$(VENV)/bin/python -m pip install --quiet --no-deps --upgrade --target $@ $$($(VENV)/bin/python -c \
	  "import jax; from importlib.metadata import requires; \
	  tpu = [r.split(';')[0] for r in requires('jax') if r.startswith('libtpu')]; \
	  print(*tpu, *[f'jax-cuda13-{part}==' + jax.__version__ for part in ('plugin', 'pjrt')])")
	@touch $@

# The libraries that ours is compared with, in an environment of their own: PyTorch's build for the CPU is for Python 3.11.
# Torchvision comes without what it asks for, since that would be a PyTorch for GPUs. Tests that need them are skipped
# where they are not.
PEERS := .venv-peers
PEERS_PYTHON ?= $(shell for p in python3.11 "$$(pyenv root 2>/dev/null)"/versions/3.11*/bin/python3.11; do \
  "$$p" -c '' 2>/dev/null && echo "$$p" && break; done)

peers: $(PEERS)/.installed

$(PEERS)/.installed: tests/peers/requirements.txt tests/peers/without_dependencies.txt
	@test -n "$(PEERS_PYTHON)" || { echo "The peers need Python 3.11; name one: make peers PEERS_PYTHON=PATH"; exit 1; }
	$(PEERS_PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --upgrade pip
	$(PEERS)/bin/python -m pip install --quiet -r tests/peers/requirements.txt
	$(PEERS)/bin/python -m pip install --quiet --no-deps -r tests/peers/without_dependencies.txt
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
	rm -rf $(VENV) $(PEERS) runs
