# molsam: `make help` lists the targets.
PYTHON ?= $(shell for name in python3.11 python3.12 python3.13 python3.14 python3; do command -v $$name && break; done)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
ARGS ?=
SWEEP ?= tune_graphsam
STUDY ?= sqlite:///outputs/$(SWEEP)/study.db

.DEFAULT_GOAL := help
.PHONY: help setup train test test-gpu test-slow campaign check format lock docs optuna-dashboard clean

help: ## show this help
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

setup: $(STAMP) ## create .venv and install molsam with pinned dependencies

$(STAMP): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info[:2] < (3, 15) else \
		"molsam needs Python 3.11 to 3.14; give one with make PYTHON=/path/to/python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --no-compile --quiet --disable-pip-version-check -c requirements.lock -e '.[dev]'
	@# pip compiles on one core, and the packages' tests too. Some files are not meant to compile.
	@$(BIN)/python -m compileall -qq -j 0 -x '/tests?/' $(VENV)/lib || true
	@touch $@

train: $(STAMP) ## train the default run (CoMPT + GraphSAM on ESOL); ARGS="model=gcn" changes it
	$(BIN)/python train.py $(ARGS)

test: $(STAMP) ## run the test suite
	$(BIN)/python -m pytest -n 2 -rfEs -m "not slow" $(ARGS)

test-gpu: $(STAMP) ## run the tests that need a CUDA device
	$(BIN)/python -m pytest -rs -m gpu $(ARGS)

test-slow: $(STAMP) ## run the long tests too
	$(BIN)/python -m pytest -n 2 -rfEs $(ARGS)

campaign: $(STAMP) ## run the tables of the paper's claims at the lowest priority; CAMPAIGN_WORKERS=1 leaves a core free
	CAMPAIGN_WORKERS=$(or $(CAMPAIGN_WORKERS),0) $(BIN)/molsam campaign run $(ARGS)

check: $(STAMP) ## lint, formatting and types
	$(BIN)/ruff check --no-cache .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP) ## format and fix what can be fixed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: $(STAMP) ## bring requirements.lock up to date for all extras and Pythons; ARGS="--upgrade" takes newer releases
	test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --all-extras --python-version 3.11 --no-header --no-annotate $(ARGS) \
		-o requirements.lock pyproject.toml

docs: $(STAMP) ## build the documentation as a site in site/; broken links are errors
	test -x $(BIN)/mkdocs || $(BIN)/python -m pip install --quiet --disable-pip-version-check \
		-c requirements.lock -e '.[dev,docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

optuna-dashboard: $(STAMP) ## browse the study of a sweep on http://127.0.0.1:8080; SWEEP=table3, or STUDY=address
	test -x $(BIN)/optuna-dashboard || $(BIN)/python -m pip install --quiet \
		-c requirements.lock -e '.[dev,optuna-dashboard]'
	$(BIN)/optuna-dashboard --host 127.0.0.1 '$(STUDY)'

clean: ## remove the environment and caches (outputs stay)
	rm -rf $(VENV) .venv-newest .pytest_cache .mypy_cache .ruff_cache build dist
