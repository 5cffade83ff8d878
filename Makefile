# Two commands do everything: `make demo` and `make test`. Both set up .venv first; nothing else is touched.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: demo test slow lint docs bench clean

demo: $(STAMP) ## run the main job on made-up images; ends with the path of a report
	$(BIN)/raremix demo

test: $(STAMP) ## run the default test suite
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 $(ARGS)

slow: $(STAMP) ## run the long tests: many kills, many simulations
	$(BIN)/python -m pytest -m slow $(ARGS)

lint: $(STAMP) ## linter, formatter, type checker, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

docs: $(STAMP) ## build the documentation into site/
	$(BIN)/mkdocs build --quiet

bench: $(STAMP) ## run the benchmarks; each prints a table and writes JSON into runs/benchmarks/
	$(BIN)/python benchmarks/train_step.py
	$(BIN)/python benchmarks/cache_read.py
	$(BIN)/python benchmarks/evaluate_bootstrap.py
	$(BIN)/python benchmarks/mixing.py
	$(BIN)/python benchmarks/mixing_masks.py
	$(BIN)/python benchmarks/guided.py
	$(BIN)/python benchmarks/puzzlemix.py
	$(BIN)/python benchmarks/importance.py
	$(BIN)/python benchmarks/peers.py

$(STAMP): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "raremix needs Python 3.11 or newer; set PYTHON=...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

clean: ## remove what was made here: the environment and the runs
	rm -rf $(VENV) runs site
