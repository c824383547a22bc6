# What you can do in a clone. It needs Python 3.11 or newer with venv, git and GNU make, nothing else:
# everything goes into .venv, from the hashed pins in requirements/.

PYTHON ?= python3
ARGS ?=
TESTS ?= tests/unit tests/integration

BIN := .venv/bin
# What an installed copy knows of the project: its dependencies, commands, and version.
PROJECT := pyproject.toml core/downloadjobs_core/__init__.py
PIP := $(BIN)/uv pip
SYNC := $(PIP) sync --quiet --python $(BIN)/python --require-hashes requirements/uv.txt
# Removes nothing: a demo leaves an environment for tests as it is.
ADD := $(PIP) install --quiet --python $(BIN)/python --require-hashes
# The build backend is installed before, so that its hash is checked as well.
INSTALL := $(PIP) install --quiet --python $(BIN)/python --no-deps --no-build-isolation \
	--reinstall-package downloadjobs --editable .

# uv does not read pip's settings: a mirror that pip was told of serves it too.
ifneq ($(PIP_INDEX_URL),)
UV_DEFAULT_INDEX ?= $(PIP_INDEX_URL)
export UV_DEFAULT_INDEX
endif

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# One environment: nothing here may run beside the installation.
.NOTPARALLEL:
.PHONY: help demo up operator test test-slow test-cluster test-cluster-load test-e2e test-scale-in chaos coverage lint format lock \
	images manifests screenshots values clean
.PHONY: kind-cluster kind-up kind-demo kind-down images-dev images-list schemas lint-chart lint-workflows test-network \
	test-upgrade

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-17s %s\n", $$1, $$2 }' Makefile

demo: .venv/.local ## Run one download job on real servers on this machine, verify its zip, stop
	@$(BIN)/downloadjobs demo $(ARGS)

operator: .venv/.dev ## Run the operator on the kubeconfig's cluster (REDIS_URL=… WATCH_NAMESPACES=default)
	@$(BIN)/downloadjobs-operator

# Ctrl-C is how `up` ends, so its exit code, 130, is no error. A shell in between would keep make's signals from it.
UP := import sys; del sys.argv[0]; from downloadjobs_cli.main import run; code = run(); sys.exit(0 if code == 130 else code)

up: .venv/.local ## Start the same servers, print their addresses, run until Ctrl-C
	@$(BIN)/python -c '$(UP)' $(BIN)/downloadjobs up $(ARGS)

test: .venv/.dev ## Run the unit and integration tests (some: TESTS=tests/unit ARGS="-k states")
	$(BIN)/pytest $(TESTS) -m "not slow and not cluster and not load" $(ARGS)

test-slow: .venv/.dev ## Run the tests that take minutes or gigabytes
	$(BIN)/pytest $(TESTS) -m slow $(ARGS)

test-cluster: .venv/.dev ## Run the tests on a Kubernetes cluster, see CONTRIBUTING.md (some: ARGS="-k schema")
	$(BIN)/pytest tests/operator -m "cluster and not load" $(ARGS)

test-cluster-load: .venv/.dev ## Run the tests with thousands of objects in a cluster
	$(BIN)/pytest tests/operator -m load $(ARGS)

test-e2e: .venv/.dev ## Run the tests of an installation on a cluster with nodes, see CONTRIBUTING.md (ARGS="-k install")
	$(BIN)/pytest tests/e2e $(ARGS)

test-scale-in: .venv/.dev ## Remove workers 20 times while others work, on such a cluster (ROUNDS=20)
	E2E_SCALE_INS=$(ROUNDS) $(BIN)/pytest tests/e2e -k no_busy_worker $(ARGS)

chaos: .venv/.dev ## Break everything while 500 jobs run, and account for each (ARGS="--seed 7 --jobs 500 --faults 50")
	@PYTHONPATH=tests/support $(BIN)/python tests/chaos/run.py $(ARGS)

coverage: .venv/.dev ## Run the tests and show which lines and branches none of them takes
	$(BIN)/pytest $(TESTS) -m "not slow and not cluster and not load" --cov $(ARGS)

lint: .venv/.dev ## Check style, format, types and the directions of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: .venv/.dev ## Format the code, and fix what can be fixed safely
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

# dev.txt holds everything, so it is solved first and the others take their versions from it.
COMPILE := $(PIP) compile --quiet --universal --generate-hashes --python-version 3.11 \
	--custom-compile-command "make lock"

lock: .venv/.uv ## Solve the pins in requirements/ anew (ARGS=--upgrade for newer versions)
	$(COMPILE) $(ARGS) pyproject.toml --extra local --extra operator --group dev -o requirements/dev.txt
	for extra in api worker operator cli local; do \
		$(COMPILE) $(ARGS) pyproject.toml --extra "$$extra" -c requirements/dev.txt \
			-o "requirements/$$extra.txt" || exit 1; \
	done
	$(COMPILE) $(ARGS) --group build -c requirements/dev.txt -o requirements/build.txt
	$(COMPILE) $(ARGS) --group reload -c requirements/dev.txt -o requirements/reload.txt
	$(COMPILE) $(ARGS) --group uv -o requirements/uv.txt

DOCKER ?= docker
TAG ?= dev
ROUNDS ?= 20

images: ## Build the images downloadjobs/{api,worker,operator}:dev by Docker (TAG=…, DOCKER=podman)
	@for process in api worker operator; do \
		$(DOCKER) build --file "$$process/Dockerfile" --tag "downloadjobs/$$process:$(TAG)" \
			--build-arg VERSION="$(TAG)" --build-arg REVISION="$$(git rev-parse HEAD 2>/dev/null)" . || exit 1; \
	done
	@$(DOCKER) images --filter 'reference=downloadjobs/*:$(TAG)'

HELM ?= helm
MANIFESTS := manifests
# Secrets that are there already: whoever applies the manifests makes them (docs/install.md).
RENDER := $(HELM) template downloadjobs charts/downloadjobs --namespace downloadjobs --kube-version 1.31.0 \
	--set bundled.redis.existingSecret=downloadjobs-redis \
	--set bundled.objectStore.workerSecret=downloadjobs-s3-worker \
	--set bundled.objectStore.apiSecret=downloadjobs-s3-api
# A clear word in place of the shell's.
NEEDS_HELM = command -v "$(HELM)" >/dev/null || { \
	echo "make: this needs Helm 3 or 4, and there is no '$(HELM)'. Say where it is: make $@ HELM=path/to/helm" >&2; exit 1; }
RIGHTS := serviceaccounts operator-rbac autoscaler-rbac
POLICIES := networkpolicies disruption pods-policy
WORKLOADS := api worker operator bundled-redis bundled-objectstore

# Writes what some templates render. Takes a file's name, and theirs.
define rendered
	@$(NEEDS_HELM); rendered=$$($(RENDER) --set tests.enabled=false $(2:%=--show-only templates/%.yaml)) && { \
		echo '# Written by `make manifests` from charts/downloadjobs with its default values: change it there.'; \
		printf '%s\n' "$$rendered" | sed -e '/^ *$$/d' -e '/^ *helm\.sh\/chart: /d' \
			-e '/^ *app\.kubernetes\.io\/managed-by: Helm$$/d' -e '/^# Source: /d'; \
	} > $(MANIFESTS)/$(1)
endef

screenshots: .venv/.dev ## Take the pictures of the page in docs/ anew; needs Chromium, and looks best with the font Inter
	DOWNLOADJOBS_SCREENSHOTS=1 $(BIN)/pytest tests/integration/page/test_screenshots.py $(ARGS)

values: .venv/.dev ## Write the schema and the reference of the chart's values
	@$(BIN)/python charts/values_reference.py

# Without what only Helm's own releases have, and without blank lines, of which Helm 3 and 4 make different numbers.
manifests: ## Render the chart into manifests/, which needs Helm 3 or 4 (HELM=path/to/helm)
	$(call rendered,downloadjobs.yaml,$(RIGHTS))
	$(call rendered,workloads.yaml,$(WORKLOADS))
	$(call rendered,policies.yaml,$(POLICIES))
	@cp charts/downloadjobs/files/crd.yaml $(MANIFESTS)/crd.yaml

kind-cluster: ## Make a cluster by kind (KIND_CLUSTER=downloadjobs, KIND_NODE=kindest/node:…), if it is not there
	@dev/kind cluster

kind-up: .venv/.local ## The same, and build the images and load them (TAG=dev)
	@TAG=$(TAG) DOCKER=$(DOCKER) dev/kind up

kind-demo: .venv/.local ## Install the chart on it, test it, and run a DownloadJob to its verified zip
	@TAG=$(TAG) HELM="$(HELM)" dev/kind demo

kind-down: ## Remove it
	@dev/kind down

images-dev: ## Build the images that `tilt up` runs, whose processes start anew when their source changes
	@for process in api worker operator; do \
		$(DOCKER) build --file "$$process/Dockerfile" --target dev --tag "downloadjobs/$$process:tilt" . || exit 1; \
	done

# Of every pod that the chart may make, once each. ARGS are Helm's, such as the values of one's own installation.
images-list: ## List the images that the chart names, one a line, to mirror them (ARGS="--values my.yaml")
	@$(NEEDS_HELM); rendered=$$($(RENDER) $(ARGS)) && \
		printf '%s\n' "$$rendered" | sed -n -E 's/^ *(- )?image: "?([^" ]+)"? *$$/\2/p' | LC_ALL=C sort -u

SCHEMAS ?= .schemas
KUBE_CONTEXT ?=

schemas: ## Take the schemas of all kinds from a cluster, for lint-chart (KUBE_CONTEXT=…, SCHEMAS=.schemas)
	@$(PYTHON) tests/support/support_schemas.py "$(SCHEMAS)" $(if $(KUBE_CONTEXT),--context "$(KUBE_CONTEXT)")

lint-chart: ## Lint the chart, and compare what it renders with those schemas; needs Helm and kubeconform
	@$(NEEDS_HELM); HELM="$(HELM)" dev/check-chart "$(SCHEMAS)"

lint-workflows: .venv/.dev ## Check the workflows and scripts; with actionlint and shellcheck, where they are
	@dev/check-workflows

test-network: .venv/.dev ## Scan an installation's ports from another namespace, on a cluster that enforces NetworkPolicies
	$(BIN)/pytest tests/network $(ARGS)

test-upgrade: .venv/.dev ## Upgrade from an older chart while jobs run (UPGRADE_FROM=path/to/chart UPGRADE_FROM_TAG=…)
	UPGRADE_FROM="$(UPGRADE_FROM)" UPGRADE_FROM_TAG="$(UPGRADE_FROM_TAG)" $(BIN)/pytest tests/upgrade $(ARGS)

clean: ## Remove .venv, caches and build results
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis .schemas dist htmlcov .coverage .coverage.*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/.uv: requirements/uv.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "make: '$(PYTHON)' is not Python 3.11 or newer ($$($(PYTHON) --version 2>&1))." >&2; \
		echo "      Name one that is, for example: make PYTHON=python3.13 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "make: '$(PYTHON)' lacks the module venv (on Debian and Ubuntu: apt install python3-venv)." >&2; \
		exit 1; }
	@echo "Making .venv, once."
	@$(PYTHON) -m venv --clear .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
	@touch $@

.venv/.local: .venv/.uv $(PROJECT) requirements/local.txt requirements/build.txt
	@echo "Installing what the demo needs."
	@$(ADD) -r requirements/build.txt -r requirements/local.txt
	@$(INSTALL)
	@touch $@

# Holds all of .local, so the demo needs nothing more after it.
.venv/.dev: .venv/.uv $(PROJECT) requirements/dev.txt
	@echo "Installing what tests and checks need."
	@rm -f .venv/.local
	@$(SYNC) requirements/dev.txt
	@$(INSTALL)
	@touch .venv/.local $@
