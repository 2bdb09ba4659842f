# Perimeter. `make demo` shows the whole loop; `make test` runs every test.
PYTHON ?= python3
VENV   ?= .venv
WORK   ?= .demo
# Build of PyTorch: default (what pip picks), cpu (small, no NVIDIA card) or cuda.
TORCH  ?= default
DATA   ?=
HUMAN  ?=
SCENARIO ?= simulations/scenarios/first_look.toml
OUT    ?= simulation-results

TORCH_INDEX_default =
TORCH_INDEX_cpu     = --extra-index-url https://download.pytorch.org/whl/cpu
TORCH_INDEX_cuda    = --extra-index-url https://download.pytorch.org/whl/cu130

BIN   = $(VENV)/bin
STAMP = $(VENV)/.installed-$(TORCH)

.PHONY: demo test check format proto sim install clean

demo: $(STAMP)
	$(BIN)/perimeter-demo --work "$(WORK)" $(if $(DATA),--data "$(DATA)") $(if $(HUMAN),--human)

# Every test; the browser's run from the installed wheel, where nothing but loopback is reachable.
# `make test ARGS=tests/unit` runs what ARGS names, in the checkout.
test: $(STAMP)
	$(BIN)/python -m pytest $(or $(ARGS),--ignore=tests/browser)
	$(if $(ARGS),,$(BIN)/python tests/browser/from_wheel.py)

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python protos/generate.py --check
	$(BIN)/python -m pytest -q tests/house

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

proto: $(STAMP)
	$(BIN)/python protos/generate.py

sim: $(STAMP)
	$(BIN)/perimeter-simulate run "$(SCENARIO)" --out "$(OUT)"

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet $(TORCH_INDEX_$(TORCH)) --constraint constraints.txt --editable ".[all]"
	touch $@

clean:
	rm -rf .demo demo-report build *.egg-info
