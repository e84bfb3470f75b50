# `make run` starts relayd with nothing but Python; `make test` and `make check` are what CI runs; `make crash` kills it
# a thousand times over and takes most of an hour.
PYTHON ?= python3
VENV   ?= .venv
BENCH  ?= .venv-bench
BIN    := $(VENV)/bin
QUIET  := -m pip --disable-pip-version-check --no-input -q
PIP    := $(BIN)/python $(QUIET)

.PHONY: run test crash faults ledger doubts failover strangers bench bench-queue bench-limits check format lock clean

run: $(VENV)/.run
	$(BIN)/relayd dev $(ARGS)

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n $$(($$(nproc) + 1)) --dist worksteal $(ARGS)

crash: $(VENV)/.dev
	$(BIN)/python -m tests.crash $(ARGS)

# What Postgres may do to relayd, at length: promotions, restarts, silence, a crowd, a full disk. ARGS="failover" for one.
faults: $(VENV)/.dev
	$(BIN)/python -m tests.faults $(ARGS)

# Whether a limit can be passed: 200 claimers at once, and 100,000 random events. ARGS="histories --total 5000" for less.
ledger: $(VENV)/.dev
	$(BIN)/python -m tests.ledger $(ARGS)

# What becomes of attempts whose reply never comes: recorded, resolved, doubled, lost. ARGS=--smtp-sink: into Postfix's.
doubts: $(VENV)/.dev
	$(BIN)/python -m tests.doubts $(ARGS)

# An upstream dies under load and comes back; with one message a minute; one address is silent. ARGS="--only slow" for one.
failover: $(VENV)/.dev
	$(BIN)/python -m tests.failover $(ARGS)

# What an honest app notices of four kinds of stranger's load; five minutes. ARGS="--seconds 10" for less.
strangers: $(VENV)/.dev
	$(BIN)/python -m tests.strangers $(ARGS)

# Beside Postfix, as root on Debian; see bench/RESULTS.md. A look in six minutes: make bench ARGS=--short
bench: $(BENCH)/.ready
	$(BENCH)/bin/python -m bench $(ARGS)

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

# What claim, start and settle cost with how much waiting; its plots: python -m bench.queue_cost.plot, with matplotlib.
bench-queue: $(VENV)/.dev
	$(BIN)/python -m bench.queue_cost run $(ARGS)

# What limits cost with ten thousand mailboxes; half an hour. One part: make bench-limits ARGS="--parts fairness"
bench-limits: $(VENV)/.dev
	$(BIN)/python -m bench.limits run $(ARGS)

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Versions and hashes alone: where a package comes from is the installing machine's business.
lock: $(VENV)/.dev
	$(PIP) install pip-tools
	$(COMPILE) --output-file requirements-build.lock requirements-build.in
	$(COMPILE) --extra embedded --output-file requirements.lock pyproject.toml
	$(COMPILE) --all-extras --output-file requirements-dev.lock pyproject.toml
	$(COMPILE) --extra embedded -c requirements.lock --output-file requirements-bench.lock \
		pyproject.toml requirements-bench.in
COMPILE = $(BIN)/pip-compile -q --strip-extras --generate-hashes --allow-unsafe --no-header --upgrade \
	--no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-emit-options

clean:
	rm -rf $(VENV) $(BENCH)

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

# What users run, and a plotter.
$(BENCH)/.ready: requirements-bench.lock requirements-build.lock pyproject.toml
	$(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/python $(QUIET) install --require-hashes -r requirements-build.lock
	$(BENCH)/bin/python $(QUIET) install --no-build-isolation --require-hashes \
		-r requirements-bench.lock
	$(BENCH)/bin/python $(QUIET) install --no-build-isolation --no-deps -e .
	@touch $@
