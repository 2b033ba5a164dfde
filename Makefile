# `make demo` and `make test` are all a new user needs: each makes .venv from
# setup.py first, if it is not there. The other targets are for development.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Two cores: two test processes; more cores, more processes.
JOBS ?= auto
DEMO_FLAGS ?=
DEMO_DIR ?= runs/demo

.PHONY: demo test test-peers lint soak benchmark bench-quick compare clean

demo: $(READY)
	$(BIN)/facesiam demo --workdir=$(DEMO_DIR) $(DEMO_FLAGS)

test: $(READY)
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal

# torch and the rest are large: an environment of their own, made once.
PEERS := .venv-peers
test-peers: $(PEERS)/.ready
	$(PEERS)/bin/python -m pytest tests/peers tests/pretrained tests/faces \
	  tests/cli/import_test.py -n $(JOBS) --dist worksteal

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy facesiam_jax launch/local.py
	$(BIN)/shellcheck launch/*.sh
	$(BIN)/yamllint --strict launch

soak: $(READY)
	$(BIN)/python benchmarks/soak.py --out=benchmarks/results/soak.json

benchmark: $(READY)
	$(BIN)/python benchmarks/olivetti.py --out=benchmarks/results/olivetti.json

# A look before a release: ratios to plain Flax and JAX in the same process.
bench-quick: $(READY)
	$(BIN)/python benchmarks/quick.py

# The documents' systems side by side; with COMPARE_DATA, the folder of the
# prepared celeba_wild112, also on its people.
COMPARE_DATA ?=
COMPARE := $(BIN)/python benchmarks/compare.py \
  --out=benchmarks/results/compare.json
compare: $(READY)
	$(COMPARE) --data=olivetti
	$(if $(COMPARE_DATA),$(COMPARE) --data=celeba --data_dir=$(COMPARE_DATA))
	$(COMPARE) --table --picture=docs/compare.png --page=docs/side_by_side.md

clean:
	rm -rf $(VENV) .venv-* runs build *.egg-info

# setup.py is the only list of what is installed: when it changes, so does
# the environment.
$(READY): setup.py
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info[:2] \
	  <= (3, 13) else "facesiam_jax needs Python 3.11 to 3.13, this is %d.%d; \
	  name another with make PYTHON=python3.12" % sys.version_info[:2])'
	@echo "Making $(VENV) and installing into it; about a minute, once."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  --editable '.[olivetti,dev]'
	@touch $(READY)

$(PEERS)/.ready: setup.py
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check \
	  --editable '.[olivetti,dev,peers,pretrained]'
	@touch $@
