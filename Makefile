# `make help` lists the targets. Each sets up what it needs; none needs root. ENGINE=gpu uses an environment of its own.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:

ENGINE ?= cpu
VENV := $(if $(filter gpu,$(ENGINE)),.venv-gpu,.venv)
PY := $(VENV)/bin/python
# Light tests first, a file a core; then those that start engines, which take all cores, one by one and unmeasured.
LIGHT := tests/tidemill tests/repo tests/benchmarks tests/scheduler tests/gateway tests/client tests/cli tests/dagster_defs
HEAVY := tests/inference tests/system
COVERAGE := --cov --cov-branch --cov-report=term --cov-report=json:build/coverage.json -p scripts.coverage_floor

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

.PHONY: preflight
preflight: ## Say within a second whether this machine can run Tidemill
	@python=$$(scripts/find_python.sh); "$$python" scripts/preflight.py --engine $(ENGINE) $(if $(wildcard $(VENV)/.installed),--installed)

.PHONY: venv
venv: ## The locked environment (.venv, or .venv-gpu with ENGINE=gpu)
	@python=$$(scripts/find_python.sh); \
	if [ "$(ENGINE)" = gpu ]; then "$$python" scripts/preflight.py --engine gpu $(if $(wildcard $(VENV)/.installed),--installed); fi; \
	"$$python" scripts/install_env.py $(ENGINE) $(VENV)

.PHONY: demo
demo: preflight venv ## Answer 200 prompts end to end (KEEP=1 leaves everything running)
	@$(PY) -m tidemill.cli.main demo --engine $(ENGINE) $(if $(filter-out 0,$(KEEP)),--keep)

.PHONY: redis
redis: venv ## A redis-server for the tests of the Redis ledger: Debian's, where it is missing and may be installed
	@$(PY) -m scripts.install_redis

.PHONY: cluster-demo
cluster-demo: venv redis ## Two schedulers on Redis, two gateways: answer the prompts while the leader is killed
	@$(PY) -m scripts.cluster_demo

.PHONY: test
test: venv redis ## Every test but the soak, with branch coverage
	@mkdir -p build
	@failed=0; \
	$(PY) -m pytest $(wildcard $(LIGHT)) -m "not soak" -n logical --maxprocesses 4 --dist loadfile $(COVERAGE) || failed=$$?; \
	$(PY) -m pytest $(wildcard $(HEAVY)) -m "not soak" || failed=$$?; \
	exit $$failed

.PHONY: soak
soak: venv redis ## The long runs
	$(PY) -m pytest tests -m soak --timeout=7200

.PHONY: check
check: venv ## Lint, types, import contracts, protos, links, secrets, emoji, locks
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(PY) scripts/gen_protos.py --check
	$(VENV)/bin/buf lint
	$(VENV)/bin/buf format --diff --exit-code protos
	$(PY) -m scripts.check_breaking
	$(VENV)/bin/lint-imports --no-logo
	$(PY) -m scripts.lock --check
	$(PY) -m scripts.env_example --check
	$(PY) -m scripts.check_links
	$(PY) -m scripts.check_secrets
	$(PY) -m scripts.check_emoji
	$(VENV)/bin/pyright

.PHONY: proto
proto: venv ## Generate the gRPC code from protos/
	$(VENV)/bin/buf format --write protos
	$(PY) scripts/gen_protos.py

.PHONY: env
env: venv ## Write .env.example from the settings classes
	$(PY) -m scripts.env_example

.PHONY: lock
lock: venv ## Compile requirements/*.in to locks (UPGRADE=1 takes newer versions)
	$(PY) -m scripts.lock $(if $(UPGRADE),--upgrade)

.PHONY: fmt
fmt: venv ## Format the code
	$(VENV)/bin/ruff check --fix --quiet . || true
	$(VENV)/bin/ruff format .

.PHONY: clean
clean: ## Remove environments and what was built; ~/.tidemill stays
	rm -rf .venv .venv-gpu build *.egg-info .pytest_cache .ruff_cache .hypothesis .coverage .coverage.*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
