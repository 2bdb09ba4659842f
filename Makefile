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

.PHONY: demo test browser check format proto sim install clean

demo: $(STAMP)
	$(BIN)/perimeter-demo --work "$(WORK)" $(if $(DATA),--data "$(DATA)") $(if $(HUMAN),--human)

test: $(STAMP)
	$(BIN)/python -m pytest $(ARGS)

# The browser suite against the installed wheel, in a network namespace with nothing but loopback.
browser: $(STAMP)
	$(BIN)/python tests/browser/from_wheel.py $(ARGS)

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
