# What works on a fresh clone with Python 3.11 or newer, make and a package index:
#
#   make demo    see it work: a vault, the broker and an API on this machine
#   make test    everything that the tests need, then all of them
#   make lint    ruff and mypy; the compiler of TypeScript too once make test has got it
#   make build   wheel, source archive and the package for Node in dist/, tried in clean environments
#   make bench   the benchmarks of docs/benchmarks.md
#   make crewai  the adapter for CrewAI with CrewAI itself, about 900 MB
#   make venv    the environment for developers in .venv
#   make lock    write requirements*.txt again from pyproject.toml
#   make clean   away with all that these made

VENV := .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/.stamps
NODE := .cache/node
CLIENTS := .cache/clients
SDK := .cache/sdk
FRAMEWORKS := .cache/frameworks
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
WORKERS ?= $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)
PYTEST_ARGS ?=

# Else each command that a test or the demo starts would compile all of it anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test lint build bench crewai venv lock clean
.DELETE_ON_ERROR:

demo: $(STAMPS)/runtime
	@$(BIN)/keyhole demo

test: $(STAMPS)/dev $(STAMPS)/needs $(NODE)/ready $(CLIENTS)/ready $(SDK)/ready $(FRAMEWORKS)/ready
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(PYTEST_ARGS)

lint: $(STAMPS)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	@[ ! -d $(SDK)/node_modules ] || scripts/sdk-node $(SDK) lint

build: $(STAMPS)/dev $(STAMPS)/needs
	rm -rf dist
	$(BIN)/python -m build --no-isolation --outdir dist .
	scripts/try-wheel $(BIN)/python dist
	scripts/sdk-node $(SDK) pack dist
	scripts/try-sdk dist

bench: $(STAMPS)/dev
	$(BIN)/python -m bench

crewai: $(STAMPS)/dev .cache/crewai/ready
	$(BIN)/python tests/campaigns/crewai_tools.py .cache/crewai/bin/python

venv: $(STAMPS)/dev

lock: $(BIN)/python
	scripts/lock $(BIN)/python

clean:
	rm -rf $(VENV) .cache dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(BIN)/python:
	scripts/make-venv $(VENV)

$(STAMPS)/runtime: requirements.txt requirements-build.txt pyproject.toml | $(BIN)/python
	$(PIP) install --require-hashes -r requirements.txt -r requirements-build.txt
	$(PIP) install --no-deps --no-build-isolation --editable .
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/dev: requirements-dev.txt $(STAMPS)/runtime
	$(PIP) install --require-hashes -r requirements-dev.txt
	@touch $@

$(STAMPS)/needs: scripts/os-needs | $(BIN)/python
	scripts/os-needs
	@mkdir -p $(STAMPS) && touch $@

# Older ones ignore the proxy variables, so the test of `fetch` needs this one.
$(NODE)/ready: scripts/node $(STAMPS)/needs
	scripts/node $(NODE)
	@touch $@

# Clients that the tests run as they are, apart from the environment of the project.
$(CLIENTS)/ready: scripts/clients requirements-clients.txt tests/e2e/clients/package-lock.json \
  $(wildcard tests/e2e/clients/*.go tests/e2e/clients/rust/Cargo.toml tests/e2e/clients/rust/src/*.rs) $(STAMPS)/needs
	scripts/clients $(BIN)/python $(CLIENTS)
	@touch $@

# The SDK for Node, with the packages that its lock file names.
$(SDK)/ready: scripts/sdk-node $(shell find sdk/node -type f -not -path '*/node_modules/*' -not -path '*/dist/*') $(STAMPS)/needs
	scripts/sdk-node $(SDK) lint
	scripts/sdk-node $(SDK)
	@touch $@

# Frameworks of agents that the adapters are for, with environments of their own.
$(FRAMEWORKS)/ready: scripts/frameworks requirements-frameworks.txt requirements-build.txt \
  tests/sdk/frameworks/package-lock.json | $(CLIENTS)/ready
	scripts/frameworks $(BIN)/python $(CLIENTS) $(FRAMEWORKS)
	@touch $@

.cache/crewai/ready: requirements-crewai.txt | $(BIN)/python
	$(BIN)/python -m venv --clear .cache/crewai
	.cache/crewai/bin/python -m pip --disable-pip-version-check install --quiet --no-deps --require-hashes -r $<
	@touch $@
