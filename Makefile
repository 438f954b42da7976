# Needed: make, and Python 3.11 or newer with venv (Debian and Ubuntu: python3-venv). The rest is installed into .venv.

PYTHON ?= python3
BIN := .venv/bin
ARGS ?=

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help run test check fix bench lock clean port chromium curl

# Runs a command and shows its output only if it fails.
quietly = out=$$({ $(1); } 2>&1) || { printf '%s\n' "$$out" >&2; exit 1; }

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):.*  ## /\1:/p' Makefile | while IFS=: read -r name what; do \
		printf '  make %-6s  %s\n' "$$name" "$$what"; \
	done

run: port .venv/.runtime  ## start the gateway, on its emulator unless CLOUD=live; another port: make run PORT=3002
	@$(BIN)/python -m app.cli migrate
	@PORT=$$($(PYTHON) tools/port.py '$(PORT)') && export PORT && \
		exec $(BIN)/python -m uvicorn app.main:app --port "$$PORT"

test: .venv/.dev chromium curl  ## run every test, or those that ARGS names: make test ARGS="tests/api -k route"
	$(BIN)/python -m pytest $(ARGS)

check: .venv/.dev  ## check formatting, lint, types, import rules and sizes
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python -m tools.measure

fix: .venv/.dev  ## format the code, and fix what the linter can fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: .venv/.dev  ## compare CPU and memory of the gateway with a hand-written server
	$(BIN)/python -m bench.run $(ARGS)

lock: .venv/.dev  ## write the lock files from pyproject.toml; for newer versions: make lock ARGS=--upgrade
	$(LOCK) pyproject.toml -o requirements.lock $(ARGS)
	$(LOCK) --group dev -c requirements.lock pyproject.toml -o requirements-dev.lock $(ARGS)

clean:  ## remove .venv and caches; ./data is kept
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find app bench tests tools -name __pycache__ -prune -exec rm -rf {} +

LOCK := $(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url \
	--custom-compile-command "make lock"

have_python = command -v $(PYTHON) >/dev/null || \
	{ echo "Python 3.11 or newer is needed, and there is no $(PYTHON) here." >&2; exit 1; }; \
	$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else \
	"Python 3.11 or newer is needed, and $(PYTHON) is %d.%d; name another: make run PYTHON=python3.11" \
	% sys.version_info[:2])'

# Checked before anything is installed.
port:
	@$(have_python)
	@$(PYTHON) tools/port.py '$(PORT)' >/dev/null

# Stamp files: a lock that is newer than its stamp is installed again.
.venv/.runtime: requirements.lock $(BIN)/python $(BIN)/pip
	@echo "Installing packages into .venv: a minute or two, once."
	@$(call quietly,$(BIN)/python -m pip install --quiet --require-hashes -r $<)
	@touch $@

.venv/.dev: requirements-dev.lock $(BIN)/python $(BIN)/pip
	@echo "Installing packages and tools into .venv: a minute or two, once."
	@$(call quietly,$(BIN)/python -m pip install --quiet --require-hashes -r $<)
	@touch $@ .venv/.runtime

# venv installs pip last: a .venv without pip is incomplete and is made again.
$(BIN)/python $(BIN)/pip &:
	@$(have_python)
	@$(call quietly,$(PYTHON) -m venv --clear .venv)

# Without these programs some tests are skipped. Installs them if we are root and there is apt-get.
chromium curl:
	@command -v $@ >/dev/null || \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo "Installing $@ for the tests."; \
		$(call quietly,apt-get update -qq && \
			DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends $@); \
	fi
