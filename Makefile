# The same commands for developers and CI. All but Ethos-U runs in .venv, which `setup` creates.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Arm's compilers need other versions of packages than the other targets: .venv-ethos-u is for them.
ETHOS := .venv-ethos-u
# Each check starts fresh processes, which would compile their modules again without bytecode.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: setup demo demo-precision demo-npu demo-ethos-u test-ethos-u demo-ship test test-slow test-users check bench schemas checkpoint-kinds mutation mutation-ethos-u conformance clean
.DEFAULT_GOAL := help

.PHONY: help
help: ## Show this list.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "%-17s %s\n", $$1, $$2}'

setup: $(VENV)/.installed ## Install the project and its tools into .venv.

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --no-compile --constraint constraints.txt --editable '.[all,dev]'
	touch $@

$(ETHOS)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(ETHOS)
	$(ETHOS)/bin/pip install --quiet "$$(grep '^torch==' constraints.txt)" --editable '.[ethos-u,chart]' pytest pytest-timeout pytest-xdist
	touch $@

demo: setup ## Export the trained digits model to every target, verify it, compare accuracy.
	$(BIN)/python examples/digits/demo.py

demo-precision: setup ## Export the digits models at every precision, compare accuracy and size.
	$(BIN)/python examples/digits/precision.py --document docs/precision.md

demo-npu: setup ## Compile the digits models for NPUs, run them on the vendors' simulators (an hour).
	$(BIN)/python examples/digits/precision.py --targets qnn --document docs/npu.md
	$(MAKE) demo-ethos-u

demo-ethos-u: $(ETHOS)/.installed ## The part of demo-npu for Arm's Ethos-U, with Slide-Swin.
	$(ETHOS)/bin/python examples/digits/precision.py --targets ethos-u --models slide_swin

demo-ship: setup ## Make a package of the digits model for each profile, classify PNG files with each.
	$(BIN)/python examples/digits/ship.py

test: setup ## Run the tests (minutes).
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

test-slow: setup ## Run the full-size models and long tests.
	$(BIN)/python -m pytest -m slow

test-ethos-u: $(ETHOS)/.installed ## Run the tests of Arm's Ethos-U in its own environment.
	$(ETHOS)/bin/python -m pytest -m "slow or not slow" -k ethos --timeout 1200 --numprocesses 2 --dist load tests/targets/test_ethos_u.py tests/contract/test_quantized.py tests/core/test_mutation_quantized.py

test-users: setup ## Install the wheel with each extra into fresh environments, export and verify there.
	$(BIN)/python -m pytest -m slow tests/users

check: setup ## Lint, format, CI files, types (on the built wheel's contents).
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-actions action.yml
	$(BIN)/zizmor --offline --quiet --no-progress action.yml .github/workflows
	rm -rf build/wheel && mkdir -p build && $(BIN)/python -m build --wheel --outdir build/wheel . >build/wheel.log 2>&1 || { cat build/wheel.log; exit 1; }
	rm -rf build/types && mkdir -p build/types && $(BIN)/python -m zipfile -e build/wheel/*.whl build/types
	cd build/types && ../../$(BIN)/mypy --config-file ../../pyproject.toml --python-executable ../../$(BIN)/python -p slide_deploy

bench: setup ## Measure the latency of every lowering and of Swin-T, and the cost of verification.
	$(BIN)/python benchmarks/latency.py --sizes 224 448 --batches 1 8
	$(BIN)/python benchmarks/reduced_precision.py
	$(BIN)/python benchmarks/coreml_lowerings.py
	$(BIN)/python benchmarks/coreml_speed.py
	$(BIN)/python benchmarks/export_cost.py

schemas: setup ## Write the JSON Schemas of manifest.json and report.json, and Core ML's messages.
	$(BIN)/python tests/schemas.py

checkpoint-kinds: setup ## Write the table of docs/checkpoints.md from the tests' cases.
	$(BIN)/python -m tests.checkpoint_cases

mutation: setup ## Break artifacts on purpose and write docs/mutation.md (more than half an hour).
	$(BIN)/python -m benchmarks.mutation --document docs/mutation.md

mutation-ethos-u: $(ETHOS)/.installed ## Write the column of Ethos-U in docs/mutation.md (an hour).
	$(ETHOS)/bin/python -m benchmarks.mutation --only-quantized --targets ethos-u --document docs/mutation.md

conformance: setup ## Run Apple's own tests on the Core ML interpreter (under 15 minutes).
	$(BIN)/python -m benchmarks.conformance

clean: ## Remove everything that was built.
	rm -rf $(VENV) $(ETHOS) build dist *.egg-info out .pytest_cache .mypy_cache .ruff_cache .hypothesis
