# `make run` and `make test` need Python 3.11 or newer and make; everything else they fetch themselves, once.

PYTHON ?= python3
BIN := .venv/bin
PORT ?= 3001
ARGS ?=

.PHONY: run test check fix bench lock clean chromium

run: export PORT := $(PORT)
run: .venv/.runtime  ## migrate the database, start the gateway (with the emulator, unless CLOUD=live)
	$(BIN)/python -m app.cli migrate
	$(BIN)/python -m uvicorn app.main:app --port $(PORT)

test: .venv/.dev chromium  ## run every test, or those that ARGS names: make test ARGS="tests/api -k route"
	$(BIN)/python -m pytest $(ARGS)

check: .venv/.dev  ## formatting, lint, types, import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

fix: .venv/.dev  ## format, and mend what lint can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: .venv/.dev  ## CPU, latency and memory of the gateway beside a bare script
	$(BIN)/python -m bench.run $(ARGS)

lock: .venv/.dev  ## write the locks anew from pyproject.toml; to raise versions: make lock ARGS=--upgrade
	$(LOCK) pyproject.toml -o requirements.lock $(ARGS)
	$(LOCK) --group dev -c requirements.lock pyproject.toml -o requirements-dev.lock $(ARGS)

clean:  ## remove what make made; ./data stays
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find app bench tests -name __pycache__ -prune -exec rm -rf {} +

LOCK := $(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url \
	--custom-compile-command "make lock"

# Each stamp is newer than the lock it was installed from.
.venv/.runtime: requirements.lock | .venv/bin/python
	$(BIN)/python -m pip install --quiet --require-hashes -r $<
	touch $@

.venv/.dev: requirements-dev.lock | .venv/bin/python
	$(BIN)/python -m pip install --quiet --require-hashes -r $<
	touch $@ .venv/.runtime

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv

# Without it the browser test is skipped; where we may install it, we do.
chromium:
	@command -v chromium >/dev/null || \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends chromium; \
	fi
