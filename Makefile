# make demo       real language models are wired into a graph that beats the best of them alone
# make test       all tests
# make test-vllm  tests against a real vLLM on the CPU; installs it into .venv-vllm if it can
# make check      lint, format, types, import order
# Each installs what it needs first, into .venv if nothing else is said.

PYTHON ?= python3
BIN := .venv/bin
TREE := build/tree/swarm

.PHONY: demo test test-vllm check format install clean
.DELETE_ON_ERROR:

demo: .venv/ready
	$(BIN)/python examples/demo.py

test: .venv/ready
	$(BIN)/python -m pytest $(ARGS)

test-vllm:
	@PYTHON=$(PYTHON) tests/vllm/run $(ARGS)

check: .venv/ready $(TREE)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	cd build/tree && ../../$(BIN)/mypy --config-file ../../pyproject.toml -p swarm
	cd build/tree && PYTHONPATH=. ../../$(BIN)/lint-imports --config ../../pyproject.toml --no-cache

format: .venv/ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

install: .venv/ready

# torch first and by its exact version, so that nothing else decides which build is fetched.
.venv/ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; make PYTHON=python3.12 …" if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[local,plot,routers,postgres,dev]'
	touch $@

# Tools that walk the file system see the one package through links (the top-level folders are its
# subpackages; see [tool.setuptools.package-dir]).
.PHONY: $(TREE)
$(TREE):
	rm -rf build/tree && mkdir -p $(TREE)
	for item in swarm/*; do ln -s ../../../$$item $(TREE)/; done
	for name in agents graphs optimizers; do ln -s ../../../$$name $(TREE)/$$name; done

clean:
	rm -rf .venv .venv-vllm build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
