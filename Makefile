# make run    photographs in, worlds out (OUT=URI SEEDS=... RECIPE=... ARGS="--frames 161")
# make test   the CPU test suite; make test-all adds the long tests; make lint checks style and types
# make stop   stops what make run started
PYTHON ?= python3
VENV   ?= .venv
OUT    ?= ./worlds
SEEDS  ?= examples/seeds/manifest.csv
RECIPE ?= mini
ARGS   ?=
# For a CPU build of torch: make run TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=

BIN  := $(VENV)/bin
PIP  := $(BIN)/python -m pip --disable-pip-version-check
DEPS := pyproject.toml constraints.txt

# The oracle of the parity tests comes without its dependencies, which conflict with everything current.
ORACLE := depth-anything-3==0.1.1 omegaconf==2.4.0 addict==2.4.0

.PHONY: run test test-all lint check stop clean constraints bench
.DEFAULT_GOAL := run

$(VENV)/installed: $(DEPS)
	@echo "installing into $(VENV) (first time: a few minutes)"
	@$(PYTHON) -m venv $(VENV)
	@$(if $(TORCH_INDEX),$(PIP) install -q --index-url $(TORCH_INDEX) -c constraints.txt torch,$(PIP) install -q -c constraints.txt torch)
	@$(PIP) install -q -c constraints.txt -e '.[factory]'
	@echo "compiling the rasteriser's kernels"
	@$(BIN)/python -m lyra_core.world_models
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed
	@$(PIP) install -q -c constraints.txt -e '.[factory,lyra2,cosmos,train,cloud,viewer,dev]'
	@$(PIP) install -q --no-deps $(ORACLE)
	@touch $@

run: $(VENV)/installed
	@$(BIN)/lyra run $(SEEDS) --out $(OUT) --recipe $(RECIPE) $(ARGS)

test: $(VENV)/installed-dev
	@$(BIN)/python -m pytest --durations=15 -m "not gpu and not cluster and not slow"

test-all: $(VENV)/installed-dev
	@$(BIN)/python -m pytest -m "not gpu and not cluster"

lint: $(VENV)/installed-dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports
	@$(BIN)/mypy

check: lint test

stop:
	@if [ -x $(BIN)/lyra ]; then $(BIN)/lyra down; else echo "nothing was installed, nothing runs"; fi

constraints: $(VENV)/installed-dev
	@(head -1 constraints.txt; $(PIP) freeze --exclude-editable) > constraints.new && mv constraints.new constraints.txt

clean:
	@rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache
