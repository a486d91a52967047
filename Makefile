# Every target builds what it needs; the environment is .venv/, with locked versions.

PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
UV := $(shell command -v uv 2>/dev/null)
BIN := .venv/bin
DEMO_FLAGS ?=

.PHONY: vegeta graphiql services services-stop test-services test-services-slow flink flink-stop bench-streams bench-serving bench-telemetry bench-batch help demo test lint format bench model prism lock clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  \1\t/'

demo: $(BIN)/.runtime ## simulate an on-sale, score it, show who is a bot and why
	@$(BIN)/fan-identity demo $(DEMO_FLAGS)

test: $(BIN)/.dev ## run the tests that need no server
	$(BIN)/python -m pytest --ignore=tests/services -m "not slow"

services: $(BIN)/.dev ## get and start the real servers the service tests use
	@$(BIN)/python deploy/services/run.py start

services-stop: ## stop them
	@$(BIN)/python deploy/services/run.py stop

test-services: $(BIN)/.dev ## run the tests on real servers (make services first)
	$(BIN)/python -m pytest -rs tests/services -m "not slow"

test-services-slow: $(BIN)/.dev ## kills, long replays, cluster runs
	$(BIN)/python -m pytest -rs -s tests -m slow

lint: $(BIN)/.dev ## style, types, import direction
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

format: $(BIN)/.dev ## rewrite the code in the project's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(BIN)/.dev ## compare with a plain loop; memory; streaming latency
	$(BIN)/python -m fan_identity.benchmarks.run

bench-streams: $(BIN)/.dev ## queues and stores beside hand-written workers; latency (make services first)
	$(BIN)/python -m fan_identity.benchmarks.streams.run

bench-serving: $(BIN)/.dev vegeta ## the API beside peers; what its Lambda handlers take to start (needs wrk and redis-server)
	$(BIN)/python -m fan_identity.benchmarks.serving.run

bench-telemetry: $(BIN)/.dev ## what metrics and traces cost, on and off (needs wrk and redis-server)
	$(BIN)/python -m fan_identity.benchmarks.telemetry.run

bench-batch: $(BIN)/.dev ## imports and clusters beside loops by hand and label propagation (make services first)
	$(BIN)/python -m fan_identity.benchmarks.batch.run

bench-console: $(BIN)/.dev ## the console's pages with 1 million dead letters and 10 million scores (6 GB in a temporary folder)
	$(BIN)/python -m fan_identity.benchmarks.console.run

flink: $(BIN)/.dev ## get and start a Flink cluster with Beam's job server, for the slow tests and for trying out
	@$(BIN)/python deploy/flink/run.py start

flink-stop: ## stop it
	@$(BIN)/python deploy/flink/run.py stop

graphiql: $(BIN)/.runtime ## get GraphiQL's files, so that its page needs no network (needs npm)
	@$(BIN)/python deploy/graphiql/get.py

model: $(BIN)/.dev ## train the embedded model anew
	$(BIN)/python -m fan_identity.batch.train_scorecard

prism: $(BIN)/prism ## get Beam's local streaming runner (needs Go)

$(BIN)/prism: | $(BIN)/.runtime
	GOBIN=$(CURDIR)/$(BIN) go install github.com/apache/beam/sdks/v2/go/cmd/prism@v$$($(BIN)/python -c 'from importlib.metadata import version; print(version("apache-beam"))')

vegeta: $(BIN)/vegeta ## get the load generator of bench-serving (needs Go)

$(BIN)/vegeta: | $(BIN)/.runtime
	GOBIN=$(CURDIR)/$(BIN) go install github.com/tsenart/vegeta/v12@v12.13.0

lock: $(BIN)/.dev ## resolve the locked versions anew (needs uv)
	uv pip compile -q setup.py requirements/build.in -o requirements/runtime.txt --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate
	uv pip compile -q setup.py requirements/dev.in -c requirements/runtime.txt -o requirements/dev.txt --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate

clean: ## remove the environment and what the demo wrote
	rm -rf .venv build *.egg-info demo-output

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "fan-identity needs Python 3.11 or newer; set PYTHON=/path/to/python3"; exit 2; }
	@$(if $(UV),uv venv -q --python $(PYTHON) .venv,$(PYTHON) -m venv .venv)

$(BIN)/.runtime: requirements/runtime.txt setup.py | $(BIN)/python
	@echo "installing locked versions into .venv ..."
	@$(if $(UV),uv pip install -q -p $(BIN)/python,$(BIN)/python -m pip install -q --disable-pip-version-check) --require-hashes -r requirements/runtime.txt
	@$(if $(UV),uv pip install -q -p $(BIN)/python,$(BIN)/python -m pip install -q --disable-pip-version-check) --no-deps --no-build-isolation -e .
	@touch $@

$(BIN)/.dev: requirements/dev.txt $(BIN)/.runtime
	@$(if $(UV),uv pip install -q -p $(BIN)/python,$(BIN)/python -m pip install -q --disable-pip-version-check) --require-hashes -r requirements/dev.txt
	@touch $@
