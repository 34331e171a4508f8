# The same commands by hand and in CI. `make help` lists them.

PYTHON ?= python3
VENV := .venv
RUNNER_VENV := .venv-runner
DOCS_VENV := .venv-docs
VERSION = $(shell sed -n 's/^version = "\(.*\)"$$/\1/p' pyproject.toml)
DEMO_DIR ?= $(CURDIR)/.demo
JOBS ?= auto

# Dagster's environment has no SQLMesh, and the runner's has no Dagster.
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check

CHECK_PYTHON = $(PYTHON) -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || \
	{ echo "$(PYTHON) must be Python 3.10 or later, with venv (Debian: apt-get install python3-venv)"; exit 1; }

SHOP := $(CURDIR)/examples/shop
SHOP_ENV = SHOP_DATABASE="$(DEMO_DIR)/shop.duckdb" SHOP_REPORTS="$(DEMO_DIR)" SHOP_MANIFEST="$(DEMO_DIR)/sqlmesh_manifest.json" \
	SHOP_RUNNER="$(CURDIR)/$(RUNNER_VENV)/bin/sqlmesh-runner" DAGSTER_HOME="$(DEMO_DIR)/dagster_home" \
	PYTHONPATH="$(SHOP)"

.PHONY: help install demo ci-demo dev test test-all bench lint format clean

help:  ## List the commands.
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(VENV)/.installed $(RUNNER_VENV)/.installed  ## Make both virtual environments.

$(VENV)/.installed: pyproject.toml examples/shop/requirements.txt
	@$(CHECK_PYTHON)
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python $(PIP_INSTALL) --editable '.[dagster,dev,dev-dagster]' --requirement examples/shop/requirements.txt
	@touch $@

$(RUNNER_VENV)/.installed: pyproject.toml tests/requirements-runner.txt
	@$(CHECK_PYTHON)
	$(PYTHON) -m venv $(RUNNER_VENV)
	$(RUNNER_VENV)/bin/python $(PIP_INSTALL) --editable '.[sqlmesh,dev]' --requirement tests/requirements-runner.txt
	@touch $@

demo: install demo-plan  ## Run the example through Dagster and show what the event log holds.
	$(SHOP_ENV) $(VENV)/bin/python "$(SHOP)/demo.py" run

ci-demo: install  ## Run the example as a CI job does, without Dagster: doctor, run, reports.
	@$(MAKE) --no-print-directory demo-plan DEMO_DIR="$(DEMO_DIR)/ci"
	@$(MAKE) --no-print-directory ci-demo-run DEMO_DIR="$(DEMO_DIR)/ci"

.PHONY: ci-demo-run
ci-demo-run:
	$(SHOP_ENV) $(RUNNER_VENV)/bin/sqlmesh-runner doctor prod --project "$(SHOP)/warehouse"
	$(SHOP_ENV) $(RUNNER_VENV)/bin/sqlmesh-runner run prod --project "$(SHOP)/warehouse" \
		--events "$(DEMO_DIR)/events.jsonl" --junit "$(DEMO_DIR)/junit.xml" --markdown "$(DEMO_DIR)/summary.md"
	@cat "$(DEMO_DIR)/summary.md"

dev: install demo-plan  ## Open Dagster's web UI on the example.
	cd "$(SHOP)" && $(SHOP_ENV) "$(CURDIR)/$(VENV)/bin/dagster" dev -m shop_dagster.definitions -h 127.0.0.1

# Where no registry can be reached: BASE_IMAGE, POSTGRES_IMAGE and PIP_ARGS, as docker/README.md says.
.PHONY: docker-demo docker-dev docker-down
docker-demo:  ## Run the example in containers: PostgreSQL, Dagster's services, a container for each run of SQLMesh.
	@docker/shop.sh demo

docker-dev:  ## Leave the example running in containers, with Dagster's web UI.
	@docker/shop.sh up

docker-down:  ## Stop what docker-dev left running, and forget its data.
	@docker/shop.sh down --volumes

# SHOP_RUNNER_IMAGE, where the cluster does not have the images of this machine: docs/kubernetes.md.
.PHONY: k8s-demo
k8s-demo: $(VENV)/.installed  ## Run the example in pods of the cluster that KUBECONFIG names, in a namespace of its own.
	@$(if $(SHOP_RUNNER_IMAGE),:,docker/shop.sh build)
	@DEMO_DIR="$(DEMO_DIR)/k8s" SHOP_RUNNER_IMAGE="$(or $(SHOP_RUNNER_IMAGE),shop-runner:$(or $(SHOP_TAG),$(VERSION)))" PYTHONPATH="$(SHOP)" \
		$(VENV)/bin/python "$(SHOP)/demo_in_pods.py"

# The plan leaves the work to the run: nothing is backfilled.
.PHONY: demo-plan
demo-plan: install
	@mkdir -p "$(DEMO_DIR)/dagster_home"
	@cp "$(SHOP)/dagster.yaml" "$(DEMO_DIR)/dagster_home/"
	$(SHOP_ENV) $(RUNNER_VENV)/bin/sqlmesh-runner manifest --project "$(SHOP)/warehouse" --output "$(DEMO_DIR)/sqlmesh_manifest.json"
	$(SHOP_ENV) $(VENV)/bin/python "$(SHOP)/demo.py" prepare
	$(SHOP_ENV) $(RUNNER_VENV)/bin/sqlmesh --log-file-dir "$(DEMO_DIR)/logs" --paths "$(SHOP)/warehouse" \
		plan prod --skip-backfill --auto-apply --no-prompts

test: install  ## Run the whole suite. What needs PostgreSQL, Docker or the cluster of KUBECONFIG is skipped, with the reason, without it.
	$(RUNNER_VENV)/bin/python -m pytest tests/protocol tests/runner -n $(JOBS)
	$(VENV)/bin/python -m pytest tests/protocol tests/orchestrator tests/integration tests/behaviour tests/faults tests/security tests/kubernetes tests/packaging tests/matrix/test_driver.py tests/docs -n $(JOBS) --dist loadgroup

# The protocol and the mapper have to be covered by their own tests alone. Left out are the tests that need Docker or a cluster, and the
# modules that have no other.
COVERAGE = -m coverage run -m pytest -q -n $(JOBS) --dist loadgroup --ignore-glob='*/test_docker*'
.PHONY: coverage
coverage: install  ## Measure the lines and branches that tests run, in each process they start: 95 % of protocol and mapper, 90 % of all.
	@rm -rf .cache/coverage && mkdir -p .cache/coverage
	$(VENV)/bin/python $(COVERAGE) tests/protocol tests/orchestrator
	@$(VENV)/bin/python -m coverage combine --append --quiet
	$(VENV)/bin/python -m coverage report --include='*/sqlmesh_pipes_protocol/*,*/dagster_sqlmesh_pipes/mapping.py' --fail-under=95
	$(RUNNER_VENV)/bin/python $(COVERAGE) tests/runner
	$(VENV)/bin/python $(COVERAGE) tests/integration tests/behaviour tests/faults tests/security
	@$(VENV)/bin/python -m coverage combine --append --quiet
	$(VENV)/bin/python -m coverage report --omit='*/launchers/containers.py,*/launchers/pods.py,*/launchers/pod_api.py,*/launchers/pod_runner.py' --fail-under=90

.PHONY: test-kubernetes
test-kubernetes: install  ## Run what needs a cluster, on that of KUBECONFIG.
	KUBERNETES_TESTS=required $(VENV)/bin/python -m pytest tests/kubernetes -n $(JOBS) --dist loadgroup

test-all: install  ## Run every behaviour on every engine.
	BEHAVIOUR_EVERYWHERE=1 $(MAKE) test

# MATRIX: pairs and options of `python -m matrix --help`, such as MATRIX="oldest,newest --suite pairs". With none, the table of the docs is
# made anew; with some, its lines that were measured.
.PHONY: matrix
matrix: $(VENV)/.installed  ## Run the contract suite over the oldest and newest SQLMesh and Dagster, and over releases of this project.
	PYTHONPATH=tests $(VENV)/bin/python -m matrix --jobs $(JOBS) --table docs/compatibility.md $(MATRIX)

.PHONY: matrix-quick
matrix-quick: $(VENV)/.installed  ## The core of it, on the oldest SQLMesh and Dagster, in minutes.
	PYTHONPATH=tests $(VENV)/bin/python -m matrix --jobs $(JOBS) --quick

.PHONY: kills
kills: install  ## Kill 500 runs at random moments, and compare what is told of each with SQLMesh's state.
	KILLS=$(or $(KILLS),500) $(VENV)/bin/python -m pytest tests/faults/test_kills.py

# By atheris where there is a build of it for this Python, else by hypothesis.
.PHONY: fuzz
fuzz: install  ## Feed odd input to all that reads, for FUZZ_SECONDS (600).
	@test -d .fuzz/site || $(VENV)/bin/python $(PIP_INSTALL) --target .fuzz/site atheris || rm -rf .fuzz/site
	PYTHONPATH=.fuzz/site $(VENV)/bin/python tests/security/fuzz.py --seconds $(or $(FUZZ_SECONDS),600)

.PHONY: soak
soak: install  ## 200 runs in a row, and 2,000 models, through Dagster end to end: what they leave behind.
	$(VENV)/bin/python tests/soak.py runs $(RUNS)
	$(VENV)/bin/python tests/soak.py models $(MODELS)

bench: install  ## Measure speed, as ratios to plain SQLMesh and bare Dagster: a table, kept in benchmarks/results (half an hour).
	$(VENV)/bin/python -m benchmarks $(BENCHMARKS)

.PHONY: bench-quick
bench-quick: install  ## Count what speed comes down to, queries, events, calls, bytes, imports; and see that each benchmark works.
	$(VENV)/bin/python -m pytest tests/performance -n $(JOBS)
	$(VENV)/bin/python -m benchmarks --quick

# With npm, the diagrams are parsed, and the site has its own copy of Mermaid. Without, a line says that they are not, and readers'
# browsers ask a public server for it.
$(DOCS_VENV)/.installed: pyproject.toml
	@$(CHECK_PYTHON)
	$(PYTHON) -m venv $(DOCS_VENV)
	$(DOCS_VENV)/bin/python $(PIP_INSTALL) --editable '.[docs]'
	@! command -v npm >/dev/null || npm install --prefix $(DOCS_VENV) --no-save --no-audit --no-fund --silent mermaid@11.17.2 jsdom@26.1.0 \
		|| echo 'npm cannot install Mermaid'
	@touch $@

.PHONY: docs docs-serve
docs: $(DOCS_VENV)/.installed  ## Build the documentation's site in site/, and check its links and diagrams.
	NO_MKDOCS_2_WARNING=1 $(DOCS_VENV)/bin/python -m mkdocs build --strict
	$(DOCS_VENV)/bin/python -m docs.generate.diagrams

docs-serve: $(DOCS_VENV)/.installed  ## Show the documentation on this machine, and build it anew as it changes.
	NO_MKDOCS_2_WARNING=1 $(DOCS_VENV)/bin/python -m mkdocs serve --dev-addr 127.0.0.1:8000

lint: install  ## Check style, types and who imports whom.
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy shared_protocol/sqlmesh_pipes_protocol orchestrator/dagster_sqlmesh_pipes docs/generate
	$(RUNNER_VENV)/bin/mypy shared_protocol/sqlmesh_pipes_protocol runner/sqlmesh_pipes_runner
	$(VENV)/bin/lint-imports

format: install  ## Bring the code into the common form.
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

.PHONY: dist
dist: $(VENV)/.installed  ## Build the wheel and the sdist into dist/, and check what an index would refuse.
	rm -rf dist
	$(VENV)/bin/python -m build --installer uv --outdir dist
	$(VENV)/bin/twine check --strict dist/*

.PHONY: test-dist
test-dist: install  ## Check what is published, in new environments too; what lies in DISTRIBUTIONS, if given, instead of a new build.
	$(VENV)/bin/python -m pytest tests/packaging -n $(JOBS) --dist loadgroup

.PHONY: release-check
release-check:  ## Check that TAG, pyproject.toml and CHANGELOG.md name the same version.
	@test "$$TAG" = "v$(VERSION)" || { echo "The tag is '$$TAG', and pyproject.toml has version $(VERSION): the tag has to be v$(VERSION)."; exit 1; }
	@grep -qE '^## \[$(VERSION)\] - [0-9]{4}-[0-9]{2}-[0-9]{2}$$' CHANGELOG.md || \
		{ echo "CHANGELOG.md has no section '## [$(VERSION)] - YYYY-MM-DD'."; exit 1; }

# In Chromium, which is the host's: SHOP_RUNNER names another runner than that of this checkout.
.PHONY: screenshots
screenshots: install  ## Take the pictures of the docs: the example in Dagster's web UI, with a run that fails and one that mends it.
	$(VENV)/bin/python "$(SHOP)/tour.py" docs/images

clean:  ## Remove what the commands made.
	rm -rf $(VENV) $(RUNNER_VENV) $(DOCS_VENV) site .demo .fuzz .matrix build dist
