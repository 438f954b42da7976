# Needed: make, and Python 3.11 or newer with venv (Debian and Ubuntu: python3-venv). The rest is installed into .venv.

PYTHON ?= python3
BIN := .venv/bin
ARGS ?=

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help run test check fix bench lock clean port chromium curl

# Runs a command; what it prints is shown only if it fails.
quietly = out=$$({ $(1); } 2>&1) || { printf '%s\n' "$$out" >&2; exit 1; }

help:  ## list what make can do
	@sed -n 's/^\([a-z]*\):.*  ## /\1:/p' Makefile | while IFS=: read -r name what; do \
		printf '  make %-6s  %s\n' "$$name" "$$what"; \
	done

run: port .venv/.runtime  ## start the gateway, on its emulator unless CLOUD=live; another port: make run PORT=3002
	@$(BIN)/python -m app.cli migrate
	@PORT=$$($(PYTHON) tools/port.py '$(PORT)') && export PORT && \
		exec $(BIN)/python -m uvicorn app.main:app --port "$$PORT"

test: .venv/.dev chromium curl  ## run every test, or those that ARGS names: make test ARGS="tests/api -k route"
	$(BIN)/python -m pytest $(ARGS)

check: .venv/.dev  ## check formatting, lint, types and import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

fix: .venv/.dev  ## format, and mend what lint can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: .venv/.dev  ## measure CPU, latency and memory of the gateway beside a bare script
	$(BIN)/python -m bench.run $(ARGS)

lock: .venv/.dev  ## write the locks anew from pyproject.toml; to raise versions: make lock ARGS=--upgrade
	$(LOCK) pyproject.toml -o requirements.lock $(ARGS)
	$(LOCK) --group dev -c requirements.lock pyproject.toml -o requirements-dev.lock $(ARGS)

clean:  ## remove what make made; ./data stays
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find app bench tests tools -name __pycache__ -prune -exec rm -rf {} +

LOCK := $(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url \
	--custom-compile-command "make lock"

have_python = command -v $(PYTHON) >/dev/null || \
	{ echo "Python 3.11 or newer is needed, and there is no $(PYTHON) here." >&2; exit 1; }; \
	$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else \
	"Python 3.11 or newer is needed, and $(PYTHON) is %d.%d; name another: make run PYTHON=python3.11" \
	% sys.version_info[:2])'

# Told before anything is installed.
port:
	@$(have_python)
	@$(PYTHON) tools/port.py '$(PORT)' >/dev/null

# Each stamp is newer than the lock it was installed from.
.venv/.runtime: requirements.lock $(BIN)/python $(BIN)/pip
	@echo "Installing packages into .venv: a minute or two, once."
	@$(call quietly,$(BIN)/python -m pip install --quiet --require-hashes -r $<)
	@touch $@

.venv/.dev: requirements-dev.lock $(BIN)/python $(BIN)/pip
	@echo "Installing packages and tools into .venv: a minute or two, once."
	@$(call quietly,$(BIN)/python -m pip install --quiet --require-hashes -r $<)
	@touch $@ .venv/.runtime

# pip comes last: without it the venv was left half-made, and is made anew.
$(BIN)/python $(BIN)/pip &:
	@$(have_python)
	@$(call quietly,$(PYTHON) -m venv --clear .venv)

# Without them some tests are skipped; where we may install them, we do.
chromium curl:
	@command -v $@ >/dev/null || \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo "Installing $@ for the tests."; \
		$(call quietly,apt-get update -qq && \
			DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends $@); \
	fi
