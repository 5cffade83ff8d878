# Two commands do everything: `make demo` and `make test`. Both set up .venv first; nothing else is touched.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
TOOLS  := .venv-audit
COOL_DOWN ?= 7 days

.PHONY: demo test slow lint docs gallery bench lock audit-dependencies clean

demo: $(STAMP) ## run the main job on made-up images; ends with the path of a report
	$(BIN)/raremix demo

test: $(STAMP) ## run the default test suite
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal $(ARGS)

slow: $(STAMP) ## run the long tests: many kills, many simulations
	$(BIN)/python -m pytest -m slow $(ARGS)

lint: $(STAMP) ## linter, formatter, type checker, import contracts
	$(BIN)/ruff check --no-cache .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

docs: $(STAMP) ## build the documentation into site/
	$(BIN)/mkdocs build --quiet

gallery: $(STAMP) ## draw what every mixer makes of phantoms into docs/gallery/
	$(BIN)/raremix show mixes phantom --output docs/gallery
	rm docs/gallery/gallery.html

bench: $(STAMP) ## run the benchmarks; each prints a table and writes JSON into runs/benchmarks/
	$(BIN)/python benchmarks/train_step.py
	$(BIN)/python benchmarks/cache_read.py
	$(BIN)/python benchmarks/evaluate_bootstrap.py
	$(BIN)/python benchmarks/mixing.py
	$(BIN)/python benchmarks/mixing_masks.py
	$(BIN)/python benchmarks/guided.py
	$(BIN)/python benchmarks/puzzlemix.py
	$(BIN)/python benchmarks/adm.py
	$(BIN)/python benchmarks/importance.py
	$(BIN)/python benchmarks/peers.py

# What resolves dependencies, and what asks about them, shares no environment with the package.
lock: $(TOOLS)/.installed ## resolve all dependencies anew, with hashes; nothing that is younger than COOL_DOWN
	$(TOOLS)/bin/uv pip compile pyproject.toml --upgrade --all-extras --universal --python-version 3.11 --generate-hashes \
		--no-config --quiet --exclude-newer '$(COOL_DOWN)' --custom-compile-command 'make lock' --output-file requirements.lock

audit-dependencies: $(TOOLS)/.installed ## ask PyPI about known vulnerabilities of what is locked; needs the network
	$(TOOLS)/bin/pip-audit --requirement requirements.lock --require-hashes --disable-pip --strict --progress-spinner off

$(TOOLS)/.installed:
	test -x $(TOOLS)/bin/python || $(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/python -m pip install --quiet --disable-pip-version-check 'uv>=0.9' 'pip-audit>=2.9'
	touch $@

$(STAMP): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "raremix needs Python 3.11 or newer; set PYTHON=...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

clean: ## remove what was made here: the environment and the runs
	rm -rf $(VENV) $(TOOLS) runs site
