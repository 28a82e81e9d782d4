# One command each on a fresh machine with Python >= 3.11 and make; the set-up happens on the way.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
READY := $(VENV)/.ready

LOWEST := .venv-lowest

.PHONY: demo test test-all test-lowest lint types docs clean

# Byte code is made by the first import, of what is imported, not by pip, of every module of every library: the demo is
# there half a minute sooner. Developers import most of it: theirs is made at once, by all processors.
$(INSTALLED) $(READY): export PIP_COMPILE = 0
demo: export PYTHONDONTWRITEBYTECODE =

# What flowsim itself needs; what only its developers need comes with the tests.
$(INSTALLED): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $(INSTALLED)

$(READY): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	-$(BIN)/python -m compileall -qq -j 0 -x '[/\\](tests|testing)[/\\]' $(VENV)/lib
	touch $(READY)

demo: $(INSTALLED)
	$(BIN)/flowsim run --out demo

test: $(READY)
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow"

test-all: $(READY)
	$(BIN)/python -m pytest -n 2 --dist worksteal

# A slice of every room with the lowest supported versions; they warn of what newer ones have changed.
$(LOWEST)/.ready: pyproject.toml .ci/lowest.txt
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check --constraint .ci/lowest.txt --editable . \
		pytest pytest-timeout hypothesis mpmath gmpy2 scikit-learn
	touch $(LOWEST)/.ready

test-lowest: $(LOWEST)/.ready
	$(LOWEST)/bin/python -m pytest -W default -m "not slow" tests/network tests/symbolic/test_derivation.py \
		tests/flows/test_growth.py tests/flows/test_products.py tests/flows/test_linear_any_scale.py \
		tests/limits/test_process.py tests/limits/test_linear_networks.py tests/descent/test_growth.py \
		tests/results tests/certificates/test_certify.py

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/python -m mypy

# The site, in build-docs/; a warning is an error. Stored pictures are drawn anew first.
docs: $(READY)
	$(BIN)/python docs/pictures.py
	$(BIN)/python -m sphinx -b html -W --keep-going -q -d build-docs/.trees docs build-docs

clean:
	rm -rf $(VENV) $(LOWEST) build dist *.egg-info demo build-docs docs/notebooks docs/reference
