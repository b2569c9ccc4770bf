PYTHON ?= python3
BIN := .venv/bin

.PHONY: install demo test test-fast lint bench results
.DEFAULT_GOAL := install

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[demo,logs,bench,test]"
	touch $@

demo: install
	$(BIN)/vop demo

test: install
	$(BIN)/python -m pytest --numprocesses auto

test-fast: install
	$(BIN)/python -m pytest --numprocesses auto -m "not slow"

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

bench: install
	$(BIN)/python bench/attention.py
	$(BIN)/python bench/train_step.py
	$(BIN)/python bench/decode.py
	$(BIN)/python bench/metrics.py

# The table of docs/results.md: about an hour on two cores.
results: install
	$(BIN)/python bench/emoji_motion.py
