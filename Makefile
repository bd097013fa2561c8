# make demo      set up on the first call, then the main job end to end
# make test      everything that continuous integration checks
# make test-fast the daily loop
# make bench     speed goals, measured against peers that make bench-setup installs
# make docs      the documentation as a site in site/
# make setup     only the set-up; make lock, make clean

SHELL := bash
.SHELLFLAGS := -eu -c
.DEFAULT_GOAL := help
.PHONY: help setup model demo test test-fast check docs bench bench-setup lock clean

VENV := .venv
BIN := $(VENV)/bin
# Names the lock and the project file that the environment was made from; written last, so an interrupted set-up starts again.
STAMP := $(VENV)/.lock-$(shell cat requirements.lock pyproject.toml | (sha256sum 2>/dev/null || shasum -a 256) | cut -d' ' -f1)
PACKAGES := $(shell grep -c '==' requirements.lock)

help:
	@sed -n 's/^# make/make/p' Makefile

setup: $(STAMP) model

$(STAMP):
	@if ! $(BIN)/python -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    for candidate in $${PYTHON:-python3.11 python3.12 python3.13 python3 python}; do \
	        if $$candidate -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then found=$$candidate; break; fi; \
	    done; \
	    if [ -z "$${found:-}" ]; then echo "No Python 3.11 or newer found. Install one, or run: make setup PYTHON=/path/to/python" >&2; exit 1; fi; \
	    echo "Creating $(VENV) with $$($$found --version)"; \
	    rm -rf $(VENV); \
	    $$found -m venv $(VENV) || { echo "On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }; \
	fi
# An index that is a folder makes pip warn of each package that it lacks: noise.
	@echo "Installing $(PACKAGES) packages from requirements.lock (a few minutes the first time)"
	@set -o pipefail; $(BIN)/python -m pip install --disable-pip-version-check -r requirements.lock \
	    2> >(grep --line-buffered -v '^WARNING: Location' >&2) | awk ' \
	    /-r requirements.lock/ { if (++n % 50 == 0) { print "      " n " of $(PACKAGES) found"; fflush() } } \
	    /^Installing collected/ { print "      unpacking"; fflush() }'
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation --editable .
	@rm -f $(VENV)/.lock-*
	@touch $@

# Returns at once where the model is in the cache.
model: $(STAMP)
	@$(BIN)/workbench model pull smollm2-135m >/dev/null

demo: setup
	@$(BIN)/workbench demo

check: $(STAMP)
	@echo "Lint, format, types, layers"
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check .
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/lint-imports >$(VENV)/lint-imports.log || { cat $(VENV)/lint-imports.log; exit 1; }

# Ends with pytest, whose last line is the summary.
test: setup check
	@echo "Notebooks"
	@$(BIN)/workbench notebooks check
	@echo "Tests"
	@$(BIN)/python -m pytest $(PYTEST_ARGS)

test-fast: setup
	@$(BIN)/ruff check --quiet .
	@$(BIN)/python -m pytest -q -m "not slow" $(PYTEST_ARGS)

# Material announces its successor before every build; that is no warning about a page.
docs: $(STAMP)
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict
	@echo "site/index.html"

# One environment a peer; the copy of its requirements is written last, so an interrupted set-up starts again.
bench-setup: $(STAMP)
	@for file in benchmarks/peers/requirements-*.txt; do \
	    name=$${file##*/requirements-}; venv=.bench/$${name%.txt}; \
	    if cmp --silent $$file $$venv/requirements.txt; then continue; fi; \
	    echo "Installing the peer $${name%.txt} in $$venv"; \
	    rm -rf $$venv; $(BIN)/python -m venv $$venv; \
	    $$venv/bin/python -m pip install --disable-pip-version-check --quiet -r $$file 2> >(grep -v '^WARNING: Location' >&2); \
	    cp $$file $$venv/requirements.txt; \
	done

bench: setup bench-setup
	@$(BIN)/python -m benchmarks

lock: $(STAMP)
	@$(BIN)/python .ci/lock.py

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .bench site
