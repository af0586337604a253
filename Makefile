# Each target sets up what it needs, in .venv; stamps in there make a second run start at once.
PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test lint clean
.DELETE_ON_ERROR:

demo: .venv/installed
	$(BIN)/hd2s predict examples/bigbuckbunny.mp4 -o out --save overlay,csv --overwrite
	@echo "The results are in $(CURDIR)/out:" && ls -l out

test: .venv/installed-dev
	$(BIN)/python -m pytest --numprocesses=2 --dist=worksteal

lint: .venv/installed-dev
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf .venv out build dist .pytest_cache .ruff_cache .mypy_cache .import_linter_cache
	find src tests -type d -name __pycache__ -prune -exec rm -rf {} +

.venv/pyvenv.cfg:
	$(PYTHON) -m venv .venv

# The pip that Python brings may be too old for dependency groups.
.venv/installed: pyproject.toml constraints.txt | .venv/pyvenv.cfg
	$(INSTALL) --upgrade pip
	$(INSTALL) --editable '.[openvino]'
	touch $@

.venv/installed-dev: .venv/installed
	$(INSTALL) --editable '.[openvino,export,train]' --group dev
	touch $@
