# `make demo` and `make test` need git, make and some Python 3 on this machine, and nothing else.
# Options: PYTHON=/path/to/python3.12, PYTEST_ARGS="-k store", DEMO_ARGS="--data FILE", BENCH="server".
.DEFAULT_GOAL := help
.PHONY: help demo test test-cluster check format bench bench-cluster images lock environment clean

VENV := .venv/bin
VERSITYGW := github.com/versity/versitygw/cmd/versitygw@v1.8.0
export PYTHON
# Half of the time that a server needs to start is the compilation of what it imports; let that be kept.
unexport PYTHONDONTWRITEBYTECODE

help:
	@echo "make demo | test | test-cluster | check | format | bench | bench-cluster | images | lock | clean"

demo: environment
	@$(VENV)/prefect-mlops demo $(DEMO_ARGS)

test: environment .tools/bin/versitygw
	@$(VENV)/python -m pytest -n 2 --dist loadfile $(PYTEST_ARGS)

# On a Kubernetes node of its own, where root, Linux, Go and some Debian packages are at hand; or on KUBECONFIG's cluster.
test-cluster: environment .tools/bin/versitygw
	@$(VENV)/python -m tests.cluster $(VENV)/python -m pytest --cluster tests/cluster $(PYTEST_ARGS)

check: environment
	@$(VENV)/python .ci/check.py

format: environment
	@$(VENV)/ruff check --quiet --fix . ; $(VENV)/ruff format .

bench: environment
	@$(VENV)/python -m tests.benchmarks $(BENCH)

# Figures of a Kubernetes node, beside Seldon's defaults.
bench-cluster: environment .tools/bin/versitygw
	@$(VENV)/python -m tests.cluster $(VENV)/python -m tests.benchmarks cluster

# BASE=image with a Python and pip, REPOSITORY=what their names begin with, IMAGE_ARGS="--push".
images: environment
	@rm -rf dist && $(VENV)/python -m build --wheel --no-isolation --outdir dist . >&2
	@$(VENV)/python -m prefect_mlops.deployments.images dist/*.whl $(if $(BASE),--base $(BASE)) \
	    $(if $(REPOSITORY),--repository $(REPOSITORY)) $(IMAGE_ARGS)

lock:
	@sh .ci/bootstrap.sh --lock

environment:
	@sh .ci/bootstrap.sh

# An S3 server to test against; without Go its tests are skipped, and everything else still runs.
.tools/bin/versitygw:
	@sh .ci/versitygw.sh $(VERSITYGW)

clean:
	rm -rf .venv .tools build dist .coverage .coverage.* .hypothesis .pytest_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +
