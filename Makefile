# `make run` starts relayd with nothing but Python; `make test` and `make check` are what CI runs; `make crash` kills it
# a thousand times over and takes most of an hour.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check --no-input -q

.PHONY: run test crash faults check format lock clean

run: $(VENV)/.run
	$(BIN)/relayd dev $(ARGS)

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n auto --dist worksteal $(ARGS)

crash: $(VENV)/.dev
	$(BIN)/python -m tests.crash $(ARGS)

# What Postgres may do to relayd, at length: promotions, restarts, silence, a crowd, a full disk. ARGS="failover" for one.
faults: $(VENV)/.dev
	$(BIN)/python -m tests.faults $(ARGS)

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
	$(COMPILE) --output-file requirements-build.lock requirements-build.in
	$(COMPILE) --extra embedded --output-file requirements.lock pyproject.toml
	$(COMPILE) --all-extras --output-file requirements-dev.lock pyproject.toml
COMPILE = $(BIN)/pip-compile -q --strip-extras --generate-hashes --allow-unsafe --no-header --upgrade \
	--no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-emit-options

clean:
	rm -rf $(VENV)

# Without build isolation, or building would fetch its tools unlocked.
$(VENV)/.build: requirements-build.lock
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --require-hashes -r requirements-build.lock
	@touch $@

$(VENV)/.run: requirements.lock pyproject.toml | $(VENV)/.build
	$(PIP) install --no-build-isolation --require-hashes -r requirements.lock
	$(PIP) install --no-build-isolation --no-deps -e .
	@touch $@

$(VENV)/.dev: requirements-dev.lock pyproject.toml | $(VENV)/.build
	$(PIP) install --no-build-isolation --require-hashes -r requirements-dev.lock
	$(PIP) install --no-build-isolation --no-deps -e .
	@touch $@ $(VENV)/.run
