# ipsecd: make demo | test | check | venv | clean
#
# All that is needed is Debian 12 with make and Python 3.11. As root, missing Debian packages are installed; the rest
# lives in .venv. `demo` and the system tests need root and work in network namespaces of their own.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO_TEST := tests/system/test_demo.py
UNIT := not root and not interop and not vm
export PATH := $(PATH):/usr/sbin:/sbin
# The tests start Python some ten thousand times: what one has compiled, the next one need not.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test check venv clean

help:
	@echo 'make demo    two gateways, a tunnel on demand, a worker killed under traffic (root, a minute)'
	@echo 'make test    the whole suite (as root: with the system tests)'
	@echo 'make check   ruff, mypy and the tests that need no root (a minute)'
	@echo 'make venv    the Python environment in .venv'
	@echo 'make clean   away with .venv and caches'

demo: venv
	@$(BIN)/python -m examples.demo </dev/null

# The demo has the machine for itself: it times what it sees. The other system tests mostly wait, so three run for each core.
test: venv
	$(BIN)/pytest -q -n auto -m '$(UNIT)' </dev/null
	$(BIN)/pytest -q $(DEMO_TEST) </dev/null
	$(BIN)/pytest -n 6 --dist worksteal -m 'not ($(UNIT))' --ignore=$(DEMO_TEST) --durations=20 </dev/null

check: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --explicit-package-bases tests/lab examples bench
	$(BIN)/pytest -q -n auto -m '$(UNIT)' --ignore=tests/fuzz </dev/null

venv: $(STAMP)

# python3-venv brings ensurepip, which Debian keeps apart from python3.
$(STAMP): pyproject.toml
	@missing=(); \
	$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv); \
	command -v ip >/dev/null || missing+=(iproute2); \
	command -v ping >/dev/null || missing+=(iputils-ping); \
	if (($${#missing[@]})); then \
		if ((EUID)); then echo "missing, as root: apt-get install $${missing[*]}" >&2; exit 1; fi; \
		export DEBIAN_FRONTEND=noninteractive; \
		apt-get -qq install -y --no-install-recommends "$${missing[@]}" </dev/null || \
		{ apt-get -qq update && apt-get -qq install -y --no-install-recommends "$${missing[@]}" </dev/null; }; \
	fi
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	$(PYTHON) -m venv $(VENV)
	@# compat: this directory on the path, and no code that finds our packages in each start of Python.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --config-settings editable_mode=compat --editable '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
