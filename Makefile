# A short front to the project's tools; `make` alone lists the targets. Works with GNU make 3.81 and newer.

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# Most tests wait for an engine, so more processes than cores pay off. A module stays in one process, with its servers.
PROCESSES := 3
PYTEST := $(BIN)/pytest -q -n $(PROCESSES) --dist loadscope --no-loadscope-reorder
# The Python that PYTHON names, else the first that is new enough and can make virtual environments.
FIND_PYTHON = for python in $(or $(PYTHON),python3 python3.13 python3.12 python3.11); do \
	  "$$python" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break; python=; \
	done; \
	if [ -z "$$python" ]; then \
	  echo "No Python 3.11 or newer with its venv module was found; install one, or name it: make PYTHON=/path/to/python" >&2; \
	  exit 1; \
	fi

# What tests need of Debian: an ssh server, what shows it a user of its own where root runs the tests, for Kafka the
# runtime of Java and what collects its jars, and PostgreSQL's server; and the compilers that build Vale.
DEBIAN_PACKAGES := openssh-server libnss-wrapper openjdk-17-jre-headless maven postgresql g++
# What an installed server of PostgreSQL would make and start by itself, unless this says that it should not.
CREATE_CLUSTER := /etc/postgresql-common/createcluster.conf

# Else each process of pytest would compile the tests once more, and each program that they start the package.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help deps venv lock check unit test proof cli demo demo-kafka demo-debezium engines-up engines-down bench bench-check schema sdk docs dist \
  clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-13s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

deps: ## Install the Debian packages that tests and checks need (as root)
	@missing=$$(for package in $(DEBIAN_PACKAGES); do \
	  dpkg-query -W -f '$${db:Status-Status}' "$$package" 2>/dev/null | grep -qx installed || echo "$$package"; \
	done); \
	if [ -n "$$missing" ]; then \
	  export DEBIAN_FRONTEND=noninteractive; install="apt-get -qq install -y --no-install-recommends"; \
	  apt-get -qq update && \
	  case "$$missing" in *postgresql*) \
	    $$install postgresql-common && sed -i 's/^#create_main_cluster = .*/create_main_cluster = false/' $(CREATE_CLUSTER);; \
	  esac && \
	  $$install $$missing; \
	fi

venv: $(INSTALLED) ## Make .venv with the locked dependencies and this package in it

$(INSTALLED): requirements.lock pyproject.toml
	@$(FIND_PYTHON); \
	if ! $(BIN)/python -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	  echo "making $(VENV) with $$python"; \
	  "$$python" -m venv --clear $(VENV); \
	fi
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

lock: ## Renew requirements.lock from pyproject.toml (needs uv)
	@command -v uv >/dev/null || { echo "uv is not installed: pip install uv" >&2; exit 1; }
	UV_PYTHON_DOWNLOADS=never uv lock
	UV_PYTHON_DOWNLOADS=never uv export --quiet --format requirements.txt --locked --no-emit-workspace --no-header \
	  -o requirements.lock

check: venv ## Format, lint, types, layers, names and prose; builds Vale first (1 to 3 minutes, once)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/names.py
	$(BIN)/python tools/prose.py

unit: venv ## The fast tests: no engine, no Pulumi CLI
	$(PYTEST) -m "not cli and not engine and not proof" tests

test: check ## Everything that CI runs; builds the Pulumi CLI first (6 to 10 minutes, once)
	$(BIN)/python tools/kafka/jars.py --for-tests
	$(BIN)/python tools/kafka/class_archive.py
	$(BIN)/python tools/pulumi_cli.py path
	$(BIN)/python tools/sdks.py build
	$(BIN)/python tools/languages.py
	$(PYTEST) -m "not proof" tests

proof: venv ## Repeat races, fuzz, run random sequences, large copies, hundreds of streams and a soak (engines; over two hours)
	$(BIN)/pytest -q -n 2 --dist loadscope --no-loadscope-reorder -m proof tests

cli: ## Build the Pulumi CLI and its language hosts, and print their folder
	@$(FIND_PYTHON); "$$python" tools/pulumi_cli.py path

demo: venv ## Show the whole thing on this machine
	$(BIN)/python tools/demo.py

demo-kafka: venv ## The same with two Kafka clusters (needs Java 17 and Maven: make deps)
	$(BIN)/python tools/demo_kafka.py

demo-debezium: venv ## The same with PostgreSQL, Debezium and Kafka (needs Java 17, Maven and PostgreSQL: make deps)
	$(BIN)/python tools/demo_debezium.py

engines-up: venv ## Start two Kafka clusters with Connect, and PostgreSQL, for the examples, and print their addresses
	@$(BIN)/python tools/engines.py up

engines-down: venv ## End what engines-up started
	@$(BIN)/python tools/engines.py down

bench: venv ## Measure over floors, into build/bench.json (twenty minutes on two cores)
	$(BIN)/python bench/run.py

bench-check: bench ## Measure, and fail where a goal is missed
	$(BIN)/python bench/check.py

schema: venv ## Write schema.json from the models
	$(BIN)/python -m replicator.plugin.schema > schema.json.new || { rm -f schema.json.new; exit 1; }
	mv schema.json.new schema.json

sdk: venv ## Write schema.json, its examples in each language, and sdk/ from it
	$(BIN)/python tools/sdks.py

docs: venv ## Write the pages that are made from the code
	$(BIN)/python tools/docs.py

dist: venv ## Build the wheels, and the plugin's tarball for this platform and Python, into dist/
	$(BIN)/python tools/dist.py

clean: ## Remove what make made in this folder; the built Pulumi CLI stays in its cache
	@if [ -d build/engines ] && [ -e $(INSTALLED) ]; then $(BIN)/python tools/engines.py down; fi
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find provider tests tools bench -name __pycache__ -type d -prune -exec rm -rf {} +
