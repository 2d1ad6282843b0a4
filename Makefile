# `make evaluate` and `make test` do their own set-up: the environment is made once and then kept.
PYTHON ?= python3
VENV ?= .venv
PIP_ARGS ?=

.PHONY: evaluate test check setup clean

setup: $(VENV)/.complete

$(VENV)/.complete: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e '.[test]'
	touch $@

evaluate: $(VENV)/.complete
	$(VENV)/bin/alpharefine evaluate

test: check
	$(VENV)/bin/python -m pytest

check: $(VENV)/.complete
	$(VENV)/bin/ruff check
	$(VENV)/bin/mypy

clean:
	rm -rf $(VENV)
