# Everything needs only Python >= 3.12, make and git; `make demo` and `make test` set up the rest in .venv.

.DEFAULT_GOAL := help
.PHONY: help env demo test test-slow test-statistical wheel newest bench bench-page lint format types docs clean

BIN := .venv/bin
# Extra arguments: make demo ARGS="--size 256", make test ARGS="-k matern -x"
ARGS ?=
# Test processes.
WORKERS ?= 2
# A file stays in one process, which has compiled its programs. Files come in their order: by number of tests, those of
# few and long ones would come last, and one process would wait for the other.
BY_FILE := --dist loadfile --no-loadscope-reorder

export PIP_DISABLE_PIP_VERSION_CHECK = 1
export MPLBACKEND ?= Agg
# Modules are compiled once, whatever the environment says: the tests start a dozen interpreters.
export PYTHONDONTWRITEBYTECODE =

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-17s %s\n", $$1, $$2 }' Makefile

env: .venv/.complete  ## make .venv with the pinned versions of constraints.txt

demo: env  ## run the quickstart (ARGS="--size 256" for a larger picture)
	$(BIN)/python examples/quickstart.py $(ARGS)

test: env  ## run the fast tests
	$(BIN)/python -m pytest -n $(WORKERS) $(BY_FILE) $(ARGS)

test-slow: env  ## run the tests that compile much
	$(BIN)/python -m pytest -n $(WORKERS) $(BY_FILE) -m slow $(ARGS)

test-statistical: env  ## run the long statistical tests
	$(BIN)/python -m pytest -n $(WORKERS) $(BY_FILE) -m statistical $(ARGS)

# A fresh environment, outside of the checkout's path: what is missing from the wheel is missing there.
wheel: env  ## build wheel and sdist in dist, and try the wheel in an environment of its own
	rm -rf dist build/wheel
	$(BIN)/python -m build --outdir dist .
	@test -z "$$(find dist -name '*.whl' -size +10M)" || { echo "The wheel is larger than 10 MB."; exit 1; }
	$(BIN)/python -m venv build/wheel
	build/wheel/bin/python -m pip install --quiet --constraint constraints.txt dist/*.whl
	cd build/wheel && bin/python ../../tools/smoke.py

# Nobody waits for this one: it tells what the next releases of others will break, and `constraints.txt` can stay.
newest:  ## try the contracts with the newest versions that pyproject.toml allows
	@python=$$(tools/find-python) && "$$python" -m venv --clear build/newest
	build/newest/bin/python -m pip install --quiet --upgrade --upgrade-strategy eager --editable '.[dev]'
	build/newest/bin/python tools/smoke.py
	build/newest/bin/python -m pytest -n $(WORKERS) $(BY_FILE) tests/contract tests/test_import.py tests/nn/test_imports.py $(ARGS)

lint: env  ## check style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: env  ## apply style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: env  ## check types
	$(BIN)/mypy

docs: .venv/.complete-docs  ## build the documentation in docs/_build/html, offline; a warning is an error
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html $(ARGS)

# The peers pin other versions than we do, and some of them other versions than each other, so they live in environments
# of their own: one for each benchmarks/peers*.txt. A benchmark calls them, and reports a peer that is missing.
PEERS := $(patsubst benchmarks/peers%.txt,.venv-peers%,$(wildcard benchmarks/peers*.txt))
bench: .venv/.complete-benchmarks  ## run the benchmarks, with the peers beside us
	@for peers in $(PEERS); do \
		$(MAKE) --no-print-directory $$peers/.complete || echo "PEERS MISSING: $$peers could not be made."; \
	done
	@for script in $(wildcard benchmarks/[a-z]*.py); do \
		echo "== $$script"; \
		PEERS_PYTHON=.venv-peers/bin/python PYTHONPATH=. $(BIN)/python $$script $(ARGS) || exit 1; \
	done
	@$(MAKE) --no-print-directory bench-page

bench-page: env  ## make docs/benchmarks.md of what is stored in benchmarks/results
	PYTHONPATH=. $(BIN)/python benchmarks/_table.py

# An environment counts once its stamp is there. The stamp goes before pip starts and comes back when pip is done, so
# one that was interrupted is made anew and one that is only out of date is brought up to date in place.
.venv/.complete: pyproject.toml constraints.txt
	@if [ ! -e $@ ] || ! $(BIN)/python -c '' 2>/dev/null; then \
		python=$$(tools/find-python) || exit 1; \
		echo "Making .venv with $$python; about 1 GB, a minute or two."; \
		"$$python" -m venv --clear .venv || exit 1; \
	fi
	@rm -f $@
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

.venv/.complete-docs: .venv/.complete
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	@touch $@

.venv/.complete-benchmarks: .venv/.complete
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[benchmarks]'
	@touch $@

define PEERS_RULE
@rm -f $@
@python=$$(tools/find-python) && "$$python" -m venv --clear $(@D)
$(@D)/bin/python -m pip install --quiet --requirement $<
@touch $@
endef
.venv-peers/.complete: benchmarks/peers.txt
	$(PEERS_RULE)
.venv-peers-%/.complete: benchmarks/peers-%.txt
	$(PEERS_RULE)

clean:  ## remove everything that was built, the environments and caches too
	rm -rf .venv .venv-peers* .cache build dist docs/_build docs/examples output *.egg-info .pytest_cache .ruff_cache .mypy_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
