# `make run` starts relayd with nothing but Python; `make test` and `make check` are what CI runs.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check --no-input -q

.PHONY: run test check format lock clean

run: $(VENV)/.run
	$(BIN)/relayd dev $(ARGS)

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n auto --dist worksteal $(ARGS)

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Versions and hashes alone: where a package comes from is the installing machine's business.
lock: $(VENV)/.dev
	$(PIP) install pip-tools
	$(BIN)/pip-compile $(LOCK) --extra embedded --output-file requirements.lock pyproject.toml
	$(BIN)/pip-compile $(LOCK) --all-extras --output-file requirements-dev.lock pyproject.toml
LOCK := -q --strip-extras --generate-hashes --allow-unsafe --all-build-deps --no-header --upgrade \
	--no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-emit-options

clean:
	rm -rf $(VENV)

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: requirements.lock pyproject.toml | $(BIN)/python
	$(PIP) install --require-hashes -r requirements.lock
	$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: requirements-dev.lock pyproject.toml | $(BIN)/python
	$(PIP) install --require-hashes -r requirements-dev.lock
	$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@ $(VENV)/.run
