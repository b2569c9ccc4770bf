PYTHON ?= python3
BIN := .venv/bin

.PHONY: install browser demo test test-fast lint bench results
.DEFAULT_GOAL := install

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[demo,logs,lora,shots,study,bench,test]"
	touch $@

demo: install
	$(BIN)/vop demo

# The page's tests need a Chromium; where there is none and none can be installed, they are skipped and say so.
browser:
	@command -v chromium chromium-browser google-chrome >/dev/null || { \
	  [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium >/dev/null; } || \
	  echo "no Chromium: the tests of the page will be skipped; install one to run them"

test: install browser
	$(BIN)/python -m pytest --numprocesses auto --dist loadgroup

test-fast: install browser
	$(BIN)/python -m pytest --numprocesses auto --dist loadgroup -m "not slow"

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

bench: install
	$(BIN)/python bench/attention.py
	$(BIN)/python bench/train_step.py
	$(BIN)/python bench/decode.py
	$(BIN)/python bench/metrics.py
	$(BIN)/python bench/index.py
	$(BIN)/python bench/search.py
	$(BIN)/python bench/serve.py

# The numbers of docs/results.md: about two hours on two cores.
results: install
	$(BIN)/vop compare --recipe recipes/emoji-motion.yaml --out runs/emoji-motion --jobs 2
	$(BIN)/vop ablate --recipe recipes/emoji-motion.yaml --out runs/emoji-motion --seeds 0 --jobs 2
	$(BIN)/python -m tools.publish_results runs/emoji-motion/report
