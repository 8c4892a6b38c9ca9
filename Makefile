# Each target sets up .venv by itself and re-uses it while it is current. Needs Python 3.11+ and make, nothing else.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-a-g test-h-z lint clean

demo: .venv/ready
	$(BIN)/veduta demo

test: .venv/ready
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(MAKE) --no-print-directory --jobs 2 test-a-g test-h-z

# Two halves side by side, of one thread each: most tests are of one thread anyway.
test-a-g:
	OMP_NUM_THREADS=1 $(BIN)/pytest tests/test_[a-g]*.py
test-h-z:
	OMP_NUM_THREADS=1 $(BIN)/pytest tests/test_[h-z]*.py

lint: .venv/ready
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(BIN)/mypy

.venv/ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Veduta needs Python 3.11 or newer; set PYTHON=python3.12, say.")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

clean:
	rm -rf .venv
