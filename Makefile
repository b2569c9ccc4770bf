PYTHON ?= python3
BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest --numprocesses auto --dist loadgroup --no-loadscope-reorder

# Otherwise each process that a test starts would compile the package again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: install browser demo test pytest coverage test-fast cluster-test lint types docs wheel bench results
.DEFAULT_GOAL := install

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

demo: install
	$(BIN)/vop demo

# The page's tests need a Chromium. Its headless shell takes a third less processor time for them. Where there is none
# and none can be installed, they are skipped and say so.
browser:
	@have() { for name; do command -v "$$name" >/dev/null && return; done; return 1; }; \
	get() { [ "$$(id -u)" = 0 ] && have apt-get && apt-get update -qq && \
	  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$$1" >/dev/null; }; \
	have chromium-headless-shell || get chromium-headless-shell || have chromium chromium-browser google-chrome || \
	  get chromium || echo "no Chromium: the tests of the page will be skipped; install one to run them"

# Everything that has to hold before a change goes in. The type checker uses one core, so it runs beside the tests.
test: lint browser
	$(MAKE) --no-print-directory --jobs 2 types pytest

# Python 3.12 and later also measure what the tests cover, at no cost. Earlier ones would take 40 percent longer.
pytest: install
	$(PYTEST) $$($(BIN)/python -c 'import sys; print("--cov --cov-report=term" * (sys.version_info >= (3, 12)))')

# What the tests cover, with any Python.
coverage: install browser
	$(PYTEST) --cov --cov-report=term

# While you work: one to three minutes.
test-fast: install
	$(PYTEST) -m "not slow"

# Indexing in shards and comparing on real parts: killed processes, an S3-compatible server, and a Ray cluster of three
# node processes that loses one. It takes about 6 minutes, and so is no part of `test`.
cluster-test: install
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[cluster]"
	$(BIN)/python -m pytest tests/search/test_shards.py tests/search/test_shards_by_address.py \
	  tests/search/test_shards_processes.py tests/utils/test_ray_resources.py tests/search/test_ray_cluster.py \
	  tests/experiments/test_ray_compare.py

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy

# The site: docs/_build/html/index.html.
docs: install
	$(BIN)/python -m sphinx -b html -W --keep-going -n docs docs/_build/html

# What `pip install vop` gets, dist/vop-*.whl, tried in an environment of its own: everything is in it, `vop demo` runs.
wheel: install
	$(BIN)/python -m pytest -m slow tests/test_wheel.py
	$(BIN)/python -m build --no-isolation --outdir dist .

bench: install
	$(BIN)/python bench/attention.py
	$(BIN)/python bench/train_step.py
	$(BIN)/python bench/backbones.py
	$(BIN)/python bench/decode.py
	$(BIN)/python bench/metrics.py
	$(BIN)/python bench/index.py
	$(BIN)/python bench/shards.py
	$(BIN)/python bench/search.py
	$(BIN)/python bench/serve.py

# The numbers of docs/results.md: about two hours on two cores.
results: install
	$(BIN)/vop compare --recipe recipes/emoji-motion.yaml --out runs/emoji-motion --jobs 2
	$(BIN)/vop ablate --recipe recipes/emoji-motion.yaml --out runs/emoji-motion --seeds 0 --jobs 2
	$(BIN)/python -m tools.publish_results runs/emoji-motion/report
