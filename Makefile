# Each target sets up .venv by itself and re-uses it while it is current. Needs Python 3.11+ and make, nothing else.
PYTHON ?= python3
BIN := .venv/bin
# processes that test at the same time, of one thread each
TESTERS ?= 2

.PHONY: demo test lint clean

demo: .venv/ready
	$(BIN)/veduta demo

test: .venv/ready
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/pytest -n $(TESTERS) --dist loadfile --ignore=tests/test_resume.py
	$(BIN)/pytest tests/test_resume.py  # it sends signals to itself, and wants a process of its own

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
