# Everything a user or a developer does, by name. `make help` lists it.
SHELL := /bin/bash
.DEFAULT_GOAL := help

PYTHON_PACKAGES := rayzero benchmarks tests
BIN := .venv/bin

.PHONY: help setup setup-dev setup-system setup-environments demo test test-unit test-integration test-long test-gpu lint format format-check types check bench docs gallery clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | while IFS=$$'\t' read -r name text; do \
		printf '  make %-17s %s\n' "$$name" "$$text"; done

setup:  ## .venv with rayzero and all it needs; at once when nothing changed
	@scripts/setup

setup-dev:  ## besides, the trainers that rayzero is compared with
	@scripts/setup compare

setup-system:  ## system packages that some tests need (as root or with sudo; Debian, Ubuntu)
	@scripts/setup-system

demo: setup  ## train SmolLM2-135M-Instruct with GRPO on this machine's CPUs and show what it learned
	@$(BIN)/rayzero train deploy/recipes/demo.yaml

test: test-unit test-integration  ## all tests that need no GPU

test-unit: setup  ## about two minutes on two cores
	@$(BIN)/python -m pytest tests/unit -n logical --maxprocesses 4 --dist worksteal

test-integration: setup  ## real Ray, vLLM, sandbox and training
	@$(BIN)/python -m pytest tests/integration -n 2 --dist loadfile --durations 25

setup-environments:  ## besides, what long tests train with: verifiers, OpenEnv, textarena
	@scripts/setup environments

test-long: setup-environments  ## what takes minutes a test, beside `make test`
	@$(BIN)/python -m pytest tests/unit tests/integration -m long

test-gpu: setup  ## on a machine with an NVIDIA GPU; elsewhere it fails and says what is missing
	@$(BIN)/python -m pytest tests/gpu

lint: setup  ## what ruff and shellcheck find
	@$(BIN)/ruff check .
	@$(BIN)/shellcheck scripts/setup scripts/setup-system scripts/lock scripts/image-digests tests/gpu/*.sh .ci/run

format: setup  ## rewrite the code in the house's format
	@$(BIN)/ruff check --fix --quiet . ; $(BIN)/ruff format .

format-check: setup  ## is it in the house's format?
	@$(BIN)/ruff format --check .

types: setup  ## strict types
	@$(BIN)/mypy --strict $(PYTHON_PACKAGES)

check: lint format-check types test-unit  ## what to run before a commit

bench: setup  ## speed of the loop on this machine
	@$(BIN)/rayzero bench loop

docs: setup  ## the manual as a site in site/: links and spelling checked, nothing fetched
	@scripts/setup docs
	@$(BIN)/python scripts/reference.py
	@git ls-files '*.md' | xargs $(BIN)/codespell
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build
	@echo "site/index.html"

gallery: setup  ## the manual's gallery from docs/results; RECIPE=demo trains that recipe first
	@$(BIN)/rayzero bench gallery $(RECIPE)

clean:  ## remove .venv and caches; runs/ stays
	rm -rf .venv site tests/grafana/node_modules .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist *.egg-info
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
