# make demo: set up and run the whole of MTDrive on the embedded world, make test: set up and run the tests.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup demo test check-viewer lint clean

setup: .venv/.installed

.venv/.installed: setup.py constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[train,dev,notebooks]'
	touch $@

demo: setup
	$(BIN)/mtdrive quickstart

test: setup
	$(BIN)/python -m pytest

check-viewer: setup  # in a real browser; needs a Chromium on the PATH
	$(BIN)/python tools/check_viewer.py

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf .venv outputs
