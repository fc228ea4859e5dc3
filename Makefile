# `make demo` and `make test` set everything up by themselves; `make demo TORCH=cpu` does so without the CUDA libraries.
# Without make: sh tools/bootstrap && .venv/bin/vidgen demo --overwrite
.DEFAULT_GOAL := help
.PHONY: help demo test test-slow test-browser fuzz mutants kill lint docs bench export-table clean
export TORCH

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' Makefile | expand -t 20

.venv/.ready: requirements.lock pyproject.toml setup.py tools/bootstrap
	@sh tools/bootstrap

demo: .venv/.ready ## train, translate and evaluate on a procedurally generated street
	.venv/bin/vidgen demo --overwrite

test: .venv/.ready ## run the tests
	.venv/bin/python -m pytest -n 2 --dist loadfile

test-slow: .venv/.ready ## run the tests that take minutes
	.venv/bin/python -m pytest -m slow

test-browser: .venv/.ready ## test the HTML pages in headless Chromium
	.venv/bin/python -m pytest -m browser

fuzz: .venv/.ready ## give damaged files to every reader, for SECONDS=60
	.venv/bin/python -m tests.fuzz --seconds $(or $(SECONDS),60)

mutants: .venv/.ready ## change lines one by one, and see whether a test notices; ROOMS="flow/warp.py ..."
	.venv/bin/python tools/mutants.py $(ROOMS)

kill: .venv/.ready ## end trainings, translations and evaluations at random moments, RUNS=100 times
	.venv/bin/python tools/kill.py --runs $(or $(RUNS),100)

lint: .venv/.ready ## check style and types
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

docs: .venv/.ready ## build the documentation in site/
	NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --strict --quiet

bench: .venv/.ready ## measure speed and memory
	.venv/bin/python tools/bench.py

export-table: .venv/.ready ## export every translator, and compare it in every engine
	.venv/bin/python tools/export_table.py --markdown

clean: ## remove caches and build products, not .venv
	rm -rf build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
