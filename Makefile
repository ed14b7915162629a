# make demo   environment, build and FAIG on real photographs
# make test   environment, build, linters and the short suite; make test-slow the other tests:
#             sanitizers, wheels, GPU kernels compiled and interpreted, faults; make notebooks
#             executes examples/; make test-all all three;
#             make faults: the whole fault campaign (docs/lab/faults.md)
#             make coverage: the short suite with lines and branches counted
# make gpu    build, checks and figures on an NVIDIA GPU within SECONDS=420, with the Python that has
#             torch for it; what is recorded is not repeated. ITEMS="second", or names of items
# PYTHON=… chooses the interpreter of a new .venv, FAIGFAST_BUILD=auto|cpu|cuda|none what is built.

RUN := .venv/bin/python -m
CXX_FILES = $$(find csrc tests/cpp scripts/gpu/program -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh')
# The wheel has no `python -m` entry, and its script may lie in an outer environment.
CLANG_FORMAT := .venv/bin/python -c "import clang_format; clang_format.clang_format()"

# Each worker computes with one thread; tests of several threads ask for them. Bytecode is kept:
# without it, each worker rewrites all tests, and each process of a test compiles the package.
PYTEST := OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(RUN) pytest -n auto --dist loadfile --durations=15
SLOW := slow or build or interpreter

.PHONY: demo test test-slow notebooks test-all faults coverage gpu sanitize bench docs lint format env

demo: env
	.venv/bin/faigfast demo

test: lint
	$(PYTEST) -m "not ($(SLOW))"

test-slow: env
	$(PYTEST) -m "$(SLOW)"

notebooks: env
	$(RUN) pytest --nbmake --nbmake-timeout=600 examples

test-all: test test-slow notebooks

# The whole fault campaign; test-slow runs its short form.
faults: env
	.venv/bin/python scripts/faults --output docs/lab/faults.md

# The short suite again, with lines and branches counted: two to three times as long.
coverage: env
	$(PYTEST) -m "not ($(SLOW))" --cov --cov-report=term

gpu:
	@$${PYTHON:-python3} -m scripts.gpu --seconds $(or $(SECONDS),420) $(ITEMS)

sanitize: env
	$(RUN) pytest tests/builds/test_sanitizers.py

bench: env
	$(RUN) pytest benchmarks

# Needs the extra docs; the editable install compiles the extension again (minutes):
# .venv/bin/python -m pip install -c .venv/torch.txt --no-build-isolation -e '.[docs]'
# Pages go to site/.
docs: env
	$(RUN) mkdocs build --strict

lint: env
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) mypy
	.venv/bin/lint-imports --no-cache
	$(CLANG_FORMAT) --dry-run -Werror $(CXX_FILES)

format: env
	$(RUN) ruff format .
	$(CLANG_FORMAT) -i $(CXX_FILES)
	$(RUN) ruff check --fix .
	$(RUN) ruff format .

env:
	@bash scripts/environment.sh
