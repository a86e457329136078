# make sim    runs the flagship scenario: 200 orders while everything is killed under them
# make test   runs the tests
# make lint   format, lint, types, import direction
# make soak   a quarter of an hour of kills and faults under load, with an audit after each minute of them
# make test-long  the tests, and those of them that take minutes
# make mutants  puts bugs into copies of the engine, and sees that the simulation finds each
# Each works alone, first, on a machine with Python 3.11 or later, make and a package registry.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready

.PHONY: sim test test-long lint soak mutants clean

sim: $(READY)
	$(BIN)/python run_sim.py

test: $(READY)
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

test-long: $(READY)
	SAGASIM_SOAK=1 $(BIN)/python -m pytest

soak: $(READY)
	$(BIN)/python run_sim.py soak

mutants: $(READY)
	$(BIN)/python -m mutants.run

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) sagasim-data *.egg-info .mypy_cache .pytest_cache .ruff_cache
