# Every target sets up what it needs in .venv; nothing is installed twice until pyproject.toml or constraints.txt change.
# Deformable convolution is timed in .venv-bench, beside operators that need a torch of their own.
#   make demo                              the live page: digits that move, and where three models look
#   make reproduce                         the experiment with its table and pictures, in runs/reproduce-quick
#   make reproduce DATA_DIR=DIR            ... on the MNIST files in DIR
#   make reproduce ARGS="--preset full"    ... with any flags of `saccade reproduce`
#   make test | test-slow | check | bench  the suite | its slow part | format, lint, types, imports, spelling | speed
#   make docs                              the site, in build/site
#   make bench BENCHMARKS=benchmarks/deform_conv.py ARGS="--turns 5"    one of the scripts, with any of its flags
# PYTHON names the interpreter to start from, PIP_ARGS goes to pip (an index with CPU wheels of torch, say).

PYTHON ?= python3
PIP_ARGS ?=
ARGS ?=
DATA_DIR ?=
PYTEST_ARGS ?= -n 2
SITE ?= build/site
BENCHMARKS ?= $(filter-out benchmarks/plain_% benchmarks/make_%,$(wildcard benchmarks/*.py))

# What is timed beside operators of others, in an environment with them.
PEERED := $(filter benchmarks/deform_conv% benchmarks/streaming.py,$(BENCHMARKS))

VENV := .venv
PEERS := .venv-bench
BIN := $(VENV)/bin
# One thread each for the two workers of the suite: more would only fight over the cores.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest

.DELETE_ON_ERROR:
.PHONY: demo reproduce test test-slow check docs bench anew

demo: $(VENV)/.has-serve
	$(BIN)/saccade serve $(ARGS)

reproduce: $(VENV)/.has-plot
	$(BIN)/saccade reproduce $(if $(DATA_DIR),--data-dir '$(DATA_DIR)') $(ARGS)

test: $(VENV)/.has-dev
	$(PYTEST) $(PYTEST_ARGS)

test-slow: $(VENV)/.has-dev
	$(PYTEST) -m slow $(PYTEST_ARGS)

check: $(VENV)/.has-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo --no-cache
	$(BIN)/codespell
	$(BIN)/clang-format --dry-run --Werror $(wildcard src/saccade/ops/deform_conv/cpp/* tests/native/*.cpp)

# A broken link, an unknown name or a page without a place in the contents fails, each time: what was read before is not reused.
docs: $(VENV)/.has-docs
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going --fresh-env --doctree-dir '$(SITE).doctrees' docs '$(SITE)'
	@echo "open $(SITE)/index.html"

bench: $(if $(filter-out $(PEERED),$(BENCHMARKS)),$(VENV)/.has-dev) $(if $(PEERED),$(PEERS)/.has-peers)
	@set -e; $(foreach script,$(BENCHMARKS),echo "== $(script)"; \
	  $(if $(filter $(PEERED),$(script)),$(PEERS)/bin,$(BIN))/python $(script) $(ARGS);)

# An environment serves only where it was made, while its Python is there and one that Saccade supports.
SUPPORTED := import sys; sys.exit(sys.version_info < (3, 11))
usable = $(shell { grep -sqF '$(CURDIR)/$1/bin/python' $1/bin/pip && $1/bin/python -c '$(SUPPORTED)'; } 2>/dev/null && echo yes)

$(VENV)/pyvenv.cfg: $(if $(call usable,$(VENV)),,anew)
$(PEERS)/pyvenv.cfg: $(if $(call usable,$(PEERS)),,anew)
$(VENV)/pyvenv.cfg $(PEERS)/pyvenv.cfg:
	@$(PYTHON) -c '$(SUPPORTED)' || { \
	  echo "Saccade needs Python 3.11 or later, $(PYTHON) is: $$($(PYTHON) --version 2>&1);" \
	    "name another one: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "$(PYTHON) has no venv module; get it with: apt install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv --clear $(@D)

# One file per set of extras that is installed; `dev` holds `plot`, `serve` and `docs`. The kernels in C++ are built along.
KERNELS := CMakeLists.txt $(wildcard src/saccade/ops/deform_conv/cpp/*)
$(VENV)/.has-%: pyproject.toml constraints.txt $(KERNELS) $(VENV)/pyvenv.cfg
	@echo "installing saccade[$*] into $(VENV): one to three minutes, torch is the largest part"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e '.[$*]'
	@$(BIN)/python -c 'from saccade.ops.deform_conv import cpu; \
	  print("deformable convolution:", cpu.unavailable() or "kernels for " + ", ".join(cpu.instruction_sets()))'
	@touch $@ $(if $(filter dev,$*),$(VENV)/.has-plot $(VENV)/.has-serve $(VENV)/.has-docs)

# torchvision's wheels belong to builds of torch with CUDA, and those bring a Triton of their own.
$(PEERS)/.has-peers: benchmarks/requirements.txt pyproject.toml constraints.txt $(KERNELS) $(PEERS)/pyvenv.cfg
	@echo "installing saccade with what it is compared with into $(PEERS): one to ten minutes, 7 GB"
	@grep -vE '^(torch|triton)==' constraints.txt >$(PEERS)/constraints.txt
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) \
	  -c $(PEERS)/constraints.txt -r benchmarks/requirements.txt -e '.[plot]'
	@touch $@
