# One command each on a fresh machine with Python >= 3.11 and make; the set-up happens on the way.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test test-all lint types docs clean

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	touch $(READY)

demo: $(READY)
	$(BIN)/flowsim run --out demo

test: $(READY)
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow"

test-all: $(READY)
	$(BIN)/python -m pytest -n 2 --dist worksteal

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/python -m mypy -p flowsim

# The site, in build-docs/; a warning is an error. Stored pictures are drawn anew first.
docs: $(READY)
	$(BIN)/python docs/pictures.py
	$(BIN)/python -m sphinx -b html -W --keep-going -q -d build-docs/.trees docs build-docs

clean:
	rm -rf $(VENV) build dist *.egg-info demo build-docs docs/notebooks docs/reference
