# The main targets are `make demo`, `make report` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --constraint constraints.txt

.PHONY: demo report test lint bench clean

demo: $(VENV)/.demo
	$(BIN)/python examples/quickstart.py

report: $(VENV)/.demo
	$(BIN)/python examples/report.py

test: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile

bench: $(VENV)/.test
	$(BIN)/python -m benchmarks.bench_fit

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or later is needed; name one with: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# Install the pinned torch first: as a dependency of another package, pip may choose a build several GB larger.
$(VENV)/.torch: constraints.txt | $(BIN)/python
	$(PIP_INSTALL) torch
	@touch $@

$(VENV)/.demo: pyproject.toml constraints.txt $(VENV)/.torch
	@echo "Installing the demo (once)..."
	$(PIP_INSTALL) --editable '.[demo]'
	@touch $@

$(VENV)/.test: pyproject.toml constraints.txt $(VENV)/.torch
	@echo "Installing the test tools (once)..."
	$(PIP_INSTALL) --editable '.[test]'
	@touch $@

clean:
	rm -rf $(VENV) outputs
