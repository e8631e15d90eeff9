# Every target sets up what it needs; `make` alone lists them.
# Paths are relative throughout: a checkout may lie in a folder whose name has spaces.
SHELL := /bin/sh
.DEFAULT_GOAL := help
PYTHON ?=
export PYTHON
# Without bytecode every process of a test run compiles the sources anew.
unexport PYTHONDONTWRITEBYTECODE

VENV_PYTHON := .venv/bin/python
PYTHON_SOURCES := service dev tests simulator scripts benchmarks

.PHONY: test-quick help setup run test chaos endurance container-test demo lint types generate generate-check format lock clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' Makefile

setup: ## Make .venv: what requirements.lock names, and this project (PYTHON=… chooses the interpreter)
	@scripts/setup.sh

run: setup ## Serve on 127.0.0.1:50051, with Postgres and Valkey of its own unless DATABASE_URL and REDIS_URL are set
	@exec env ZAP_ENVIRONMENT=development $(VENV_PYTHON) -m service serve

test: setup ## Run every test, most of which wait, in 4 processes (PYTEST_ARGS="-k name" runs some, WORKERS=0 one by one)
	@$(VENV_PYTHON) -m pytest -n $(or $(WORKERS),4) --dist loadfile $(PYTEST_ARGS)

test-quick: setup ## Run the tests for daily work: all but those that start whole nodes
	@$(VENV_PYTHON) -m pytest -n $(or $(WORKERS),4) --dist loadfile tests/unit tests/rpc tests/contract tests/integration $(PYTEST_ARGS)

chaos: setup ## Try what three nodes and the event log must show, strike them by chance (STEPS=100), have every outage of the database under traffic; an hour and a half (CHAOS_ARGS="--seconds 1 --faults hung" has some outages)
	@$(VENV_PYTHON) -m tests.chaos trials
	@$(VENV_PYTHON) -m tests.chaos events
	@$(VENV_PYTHON) -m tests.chaos nodes --steps $(or $(STEPS),100)
	@$(VENV_PYTHON) -m tests.chaos outages $(CHAOS_ARGS)

container-test: setup ## Build the image and run the compose file's three replicas in real containers, and lose some; ten minutes
	@exec $(VENV_PYTHON) -m tests.containers

demo: setup ## Play the whole story against a simulated WhatsApp
	@exec $(VENV_PYTHON) -m tests.demo

endurance: setup ## Look for what is left over or grows, for three quarters of an hour (ROUNDS=200, SESSIONS=50, DURATION=1800 s; 0: none)
	@exec $(VENV_PYTHON) -m tests.endurance --rounds $(or $(ROUNDS),200) --sessions $(or $(SESSIONS),50) --duration $(or $(DURATION),1800)

lint: setup ## Check style, protos, their compatibility, generated code and scripts (`make format` repairs style)
	@scripts/lint.sh $(PYTHON_SOURCES)

types: setup ## Check the types
	@$(VENV_PYTHON) -m mypy --strict $(PYTHON_SOURCES)

generate: setup ## Write generated/ from protos/
	@$(VENV_PYTHON) scripts/generate.py

generate-check: setup ## Check that generated/ is what protos/ gives (`make generate` repairs it)
	@$(VENV_PYTHON) scripts/generate.py --check

format: setup ## Repair style: Python and protos
	@$(VENV_PYTHON) -m ruff check --fix-only --quiet $(PYTHON_SOURCES)
	@$(VENV_PYTHON) -m ruff format $(PYTHON_SOURCES)
	@BUF_CACHE_DIR=.venv/buf-cache .venv/bin/buf format --write --path protos/zap

lock: ## Write requirements.lock anew from pyproject.toml, and deploy/requirements.lock, the image's part of it (needs uv)
	@command -v uv >/dev/null || { echo 'make lock needs uv: pip install uv' >&2; exit 1; }
	@uv pip compile --quiet --universal --python-version 3.11 --all-extras --generate-hashes --upgrade \
	  --no-emit-index-url --no-annotate --no-header --output-file requirements.lock pyproject.toml
	@echo setuptools | uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --constraint requirements.lock \
	  --no-emit-index-url --no-annotate --no-header --output-file deploy/requirements.lock pyproject.toml -

clean: ## Remove .venv and caches; never .data, which holds credentials
	@rm -rf .venv .venv.lock build .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
