# `make demo` and `make test` need nothing but Python 3.11+ with venv: each sets up .venv first.
PYTHON ?= python3
VENV ?= .venv
DEMO ?= build/demo
BIN := $(VENV)/bin
READY := $(VENV)/.ready
SWEEPS := sr fraction_3x3 pooling bypass

.PHONY: demo test lint docs gallery sweeps census benchmarks bench-cpu bench-gpu train-gpu clean

# The committed outcome under results/ stays as it is: the demo writes elsewhere.
demo: $(READY)
	$(BIN)/python -m sqzexplore sweep sweeps/sr.yaml --out $(DEMO)

test: $(READY)
	$(BIN)/python -m pytest -n auto

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The site, into build/site; what a link does not reach, or the navigation leaves out, is an error.
docs: $(READY)
	$(BIN)/python -m sphinx -W --keep-going -E -q -c docs -d build/doctrees . build/site

# The four questions of the paper, into results/; what is there already is not measured again.
sweeps: $(READY)
	for sweep in $(SWEEPS); do $(BIN)/python -m sqzexplore sweep sweeps/$$sweep.yaml || exit; done

# The exact cost of every architecture of sweeps/census.yaml.
census: $(READY)
	$(BIN)/python -m sqzexplore census sweeps/census.yaml --folder results/census

# Ours against its peers, each in one run; they need peers that nothing else needs.
benchmarks: $(READY)
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[benchmarks]"
	$(BIN)/python benchmarks/cost.py --out results/benchmarks/cost.csv
	$(BIN)/python benchmarks/census.py

# torchvision's SqueezeNet against ours in every mode, then the throughput of the four sweeps, then
# trials an hour with several workers, into results/throughput-cpu or results/throughput-gpu, which
# needs a CUDA build of torch in $(VENV).
bench-cpu: DEVICE := cpu
bench-cpu: MODES := --batch 1,16 --dtype float32,bfloat16 --form module,inference
bench-gpu: DEVICE := cuda
bench-gpu: MODES := --batch 1,64,256 --dtype float32,tf32,float16,bfloat16 \
	--form module,inference --mode eager,cuda_graph
bench-cpu bench-gpu: bench-%: $(READY)
	$(BIN)/python benchmarks/throughput.py --device $(DEVICE) --out results/throughput-$*
	for sweep in $(SWEEPS); do $(BIN)/python -m sqzexplore bench sweeps/$$sweep.yaml \
		--device $(DEVICE) $(MODES) --seconds 3 --out results/throughput-$*/$$sweep || exit; done
	$(BIN)/python benchmarks/workers.py --device $(DEVICE) --out results/throughput-$*/workers.csv

# What only a GPU answers of training, on CIFAR-10: CIFAR10=FOLDER make train-gpu. Images/s against
# a plain loop, trials an hour with several workers, the level of squeezenet_cifar with three seeds.
train-gpu: $(READY)
	$(BIN)/python benchmarks/training.py --device cuda:0
	$(BIN)/python benchmarks/workers.py --device cuda:0 --data '$${CIFAR10}' --epochs 2 \
		--out results/throughput-gpu/workers-cifar10.csv
	$(BIN)/python -m sqzexplore sweep sweeps/cifar10/level-gpu.yaml --device cuda:0

# torch first and by its exact version: a range would fetch the newest build, with gigabytes of CUDA.
$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt torch
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[dev]"
	touch $@

# The pictures of docs/gallery.md, from the committed results.
gallery: $(READY)
	$(BIN)/python docs/gallery.py

clean:
	rm -rf $(VENV) build .pytest_cache .mypy_cache .ruff_cache .hypothesis
