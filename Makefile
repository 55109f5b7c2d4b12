# One folder, `.venv`, holds everything; nothing else on the machine is changed.
# Overridable: PYTHON (3.11 or newer), ARGS (given to the command that runs), and every KEYTURN_ variable.

PYTHON ?= python3
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --no-header $(ARGS) pyproject.toml --extra server requirements/server.in

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run test check bench lock clean

help:  ## Show this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1 | \2/p' Makefile | while IFS='|' read -r name what; do \
		printf '%-14s%s\n' "$$name" "$$what"; done

run: $(VENV)/.server-installed  ## Start the server on 127.0.0.1:8700 with SQLite in ./data
	@exec $(BIN)/keyturn serve $(ARGS)

test: $(VENV)/.dev-installed  ## Run every test (ARGS='-k revoke' picks some)
	@$(BIN)/python -m pytest -q -n auto $(ARGS)

check: $(VENV)/.dev-installed  ## Check format, lint, types, imports and documents
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q -n auto -m "not slow" tests/docs tests/deployment

bench: $(VENV)/.dev-installed  ## Measure what docs/benchmarks.md reports
	@$(BIN)/python -m benchmarks $(ARGS)

lock: $(VENV)/.dev-installed  ## Resolve requirements/*.txt again (ARGS=--upgrade takes newer versions)
	$(COMPILE) -o requirements/server.txt
	$(COMPILE) -c requirements/server.txt requirements/dev.in -o requirements/dev.txt

clean:  ## Remove .venv and every cache; never ./data
	rm -rf $(VENV) build dist src/*.egg-info .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find src tests tools -type d -name __pycache__ -prune -exec rm -rf {} +
	find src -name '*.so' -delete

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "error: $(PYTHON) is missing or older than 3.11" >&2; \
		echo "hint: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "error: $(PYTHON) cannot create virtual environments" >&2; \
		echo "hint: install its venv module (on Debian: apt install python3-venv), or name another with PYTHON=" >&2; \
		exit 1; }
	@echo "creating $(VENV)"
	@$(PYTHON) -m venv --clear $(VENV)
	@touch $@

# The package itself is installed last, in place and offline: its build backend is one of the locked requirements.
$(VENV)/.server-installed: requirements/server.txt pyproject.toml | $(VENV)/.created
	@echo "installing the server (about half a minute the first time)"
	@$(PIP_INSTALL) --require-hashes -r requirements/server.txt
	@$(PIP_INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev-installed: requirements/dev.txt requirements/server.txt pyproject.toml | $(VENV)/.created
	@echo "installing the server and its development tools (about a minute the first time)"
	@$(PIP_INSTALL) --require-hashes -r requirements/dev.txt
	@$(PIP_INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@ $(VENV)/.server-installed
