# `make demo` and `make test` need nothing but Python 3.11+ with venv: each sets up .venv first.
PYTHON ?= python3
VENV ?= .venv
DEMO ?= build/demo
BIN := $(VENV)/bin
# PY=python3 runs everything in an environment that is there: nothing is made or installed.
ifdef PY
export PYTHONPATH := $(CURDIR)/src$(if $(PYTHONPATH),:$(PYTHONPATH))
else
PY := $(BIN)/python
READY := $(VENV)/.ready
endif
SWEEPS := sr fraction_3x3 pooling bypass

.PHONY: help demo test test-fast lint docs gallery sweeps pages census benchmarks bench-cpu gpu clean

# What there is.
help:
	@sed -n "s/^\([a-z-]*\):.*## /\1\t/p" $(MAKEFILE_LIST) | expand -t 14

# The committed outcome under results/ stays as it is: the demo writes elsewhere.
demo: $(READY)  ## three squeeze ratios on real images, into build/demo: a table and figures
	$(PY) -m sqzexplore sweep sweeps/demo.yaml --out $(DEMO)

test: $(READY)  ## all tests
	$(PY) -m pytest -n auto --dist worksteal

test-fast: $(READY)  ## those without servers, clusters, kills and the site
	$(PY) -m pytest -n auto --dist worksteal -m "not slow and not browser"

lint: $(READY)  ## ruff, mypy, and the direction of the imports
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(if $(READY),$(BIN)/)lint-imports

# The site, into build/site; what a link does not reach, or the navigation leaves out, is an error.
docs: $(READY)  ## the site, into build/site
	$(PY) -m sphinx -W --keep-going -E -q -c docs -d build/doctrees . build/site

# The four questions of the paper, into results/; what is there already is not measured again.
sweeps: $(READY)  ## the paper's four questions, into results/
	for sweep in $(SWEEPS); do $(PY) -m sqzexplore sweep sweeps/$$sweep.yaml || exit; done

# After a sweep: what is said of its tables, said again.
pages: $(READY)  ## what results/ and README say, from the tables
	$(PY) results/pages.py
	$(PY) -c "import nbformat as f, nbclient as c; name = 'results/analysis.ipynb'; b = f.read(name, 4); \
		c.execute(b, cwd='results', record_timing=False); f.write(b, name)"

# The exact cost of every architecture of sweeps/census.yaml.
census: $(READY)  ## the exact cost of 2,851,200 architectures
	$(PY) -m sqzexplore census sweeps/census.yaml --folder results/census

# Ours against its peers, each in one run; they need peers that nothing else needs.
benchmarks: $(READY)  ## counts against other counters
	$(if $(READY),$(PY) -m pip install -q -c constraints.txt -e ".[benchmarks]")
	$(PY) benchmarks/cost.py --out results/benchmarks/cost.csv
	$(PY) benchmarks/census.py

# torchvision's SqueezeNet against ours in every mode, then the throughput of the four sweeps, then
# trials an hour with several workers, into results/throughput-cpu.
bench-cpu: $(READY)  ## throughput and trainings an hour on this CPU
	$(PY) benchmarks/throughput.py --device cpu --out results/throughput-cpu
	for sweep in $(SWEEPS); do $(PY) -m sqzexplore bench sweeps/$$sweep.yaml --device cpu \
		--batch 1,16 --dtype float32,bfloat16 --form module,inference --seconds 3 \
		--out results/throughput-cpu/$$sweep || exit; done
	$(PY) benchmarks/workers.py --device cpu --out results/throughput-cpu/workers.csv

# Everything that a GPU is wanted for, the most valuable first: CIFAR10=FOLDER make gpu [MINUTES=8].
# Run again it goes on. Needs a CUDA build of torch: in $(VENV), or PY=python3 (docs/gpu.md).
gpu: $(READY)  ## everything that a GPU is wanted for (docs/gpu.md)
	$(PY) benchmarks/gpu.py $(if $(MINUTES),--minutes $(MINUTES))

# torch first and by its exact version: a range would fetch the newest build, with gigabytes of CUDA.
# pip keeps one core busy: the largest others are unpacked beside torch, what is there is compiled
# beside the rest, and the rest by all cores.
LARGE := duckdb onnxruntime openvino playwright polars-runtime-32 pyarrow ray scikit-learn scipy
PIP = $(BIN)/python -m pip install -q --no-compile -c constraints.txt
COMPILE = $(BIN)/python -m compileall -qq -x /tests/ $(VENV)/lib -j
$(VENV)/.ready: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) torch & $(PIP) --no-deps $(LARGE) && wait $$!
	$(COMPILE) 1 & $(PIP) -e ".[dev]" && wait
	$(COMPILE) 0 || true
	touch $@

# The pictures of docs/gallery.md, from the committed results.
gallery: $(READY)  ## the pictures of docs/gallery.md
	$(PY) docs/gallery.py

clean:  ## remove what was built
	rm -rf $(VENV) build .pytest_cache .mypy_cache .ruff_cache .hypothesis
