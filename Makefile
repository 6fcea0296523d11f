# What people and CI run. `make help` lists it; .ci/run is the whole of a check.

CARGO ?= cargo
FUZZ_SECONDS ?= 3600
# The same inputs in every run; 0: others.
FUZZ_SEED ?= 0
IMAGE ?= ecr-audit-operator:dev
# The folder with kubectl and helm, building the programs if need be.
TESTBED = tests/testbed/build.sh

.DEFAULT_GOAL := help
.PHONY: help build demo test soak lint chart chart-snapshots docs fmt crds testbed control-plane deny clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## build the release binary, target/release/ecr-audit
	$(CARGO) build --release --locked

test: testbed ## run every test, against a real control plane
	$(CARGO) test --locked --all-targets --no-fail-fast
	$(CARGO) test --locked --doc

soak: testbed ## kill the operator a thousand times while it ingests, and a writer of the ledger as often
	ECR_AUDIT_SOAK=1000 $(CARGO) test --locked --test killed -- --nocapture
	ECR_AUDIT_SOAK=1000 $(CARGO) test --locked --test ledger -- crashes::

# The time of the last commit is that of every file in the image: one source, the same layers.
EPOCH = $$(git log -1 --format=%ct)
IMAGE_ARGS = --build-arg SOURCE_DATE_EPOCH=$(EPOCH) --build-arg VERSION=$$(git describe --always --dirty)

.PHONY: image
image: ## build the image IMAGE, with buildah or else docker
	if command -v buildah > /dev/null; then \
		buildah build --layers --timestamp $(EPOCH) $(IMAGE_ARGS) --tag $(IMAGE) .; \
	else \
		docker buildx build $(IMAGE_ARGS) \
			--output type=docker,name=$(IMAGE),rewrite-timestamp=true .; \
	fi

.PHONY: bench-files bench-trail bench-day bench-ledger bench-growth bench-idle fuzz
bench-files: ## how fast trail files are read, as ratios to pure inflate
	$(CARGO) build --release --locked --bin ecr-audit --example inflate
	python3 benches/files.py target/release/ecr-audit target/release/examples/inflate

bench-trail: ## a trail's bucket against the same files on disk, as ratios of CPU; the memory of back-fill
	$(CARGO) build --release --locked --example ingest --example replay
	python3 benches/trail.py target/release/examples/ingest target/release/examples/replay

bench-day: ## a day of 8.6 million ECR events from a bucket into a ledger; needs 1.5 GB of disk
	$(CARGO) build --release --locked --example ingest
	python3 benches/day.py target/release/examples/ingest

bench-ledger: ## facts a second into SQLite and PostgreSQL, bytes a pull, and how long reading takes
	$(CARGO) bench --locked --bench ledger

bench-growth: ## how long an assessment takes while the ledger grows from ten thousand to ten million facts
	$(CARGO) bench --locked --bench growth

bench-idle: ## how soon the operator is ready in an empty cluster, and what memory it holds
	$(CARGO) build --release --locked --bin ecr-audit
	$(CARGO) run --locked --quiet --example testbed -- \
		python3 benches/idle.py target/release/ecr-audit

# Without a sanitizer, which the code needs none of for want of `unsafe`, stable Rust will do.
fuzz: ## fuzz every parser for FUZZ_SECONDS each (3600)
	export PATH="$$($(TESTBED) cargo-fuzz):$$PATH"; \
	for target in splitter record reference policy message; do \
		mkdir -p target/fuzz/corpus/$$target && \
		$(CARGO) fuzz run --dev --sanitizer none --target-dir target/fuzz $$target \
			target/fuzz/corpus/$$target fuzz/seeds/$$target -- \
			-seed=$(FUZZ_SEED) -max_total_time=$(FUZZ_SECONDS) -max_len=65536 -rss_limit_mb=1024 -timeout=10 \
			-print_final_stats=1 || exit 1; \
	done

lint: ## check formatting, lints, scripts, the Dockerfile and the workflows
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	shellcheck .ci/run $$(git ls-files '*.sh')
	python3 docs/generate.py --check
	"$$($(TESTBED) python)/hadolint" Dockerfile
	go run github.com/rhysd/actionlint/cmd/actionlint@v1.7.12 .github/workflows/*.yml

chart: ## check the Helm chart, its alerts and its dashboard
	for values in charts/*/ci/*-values.yaml; do \
		"$$($(TESTBED))/helm" lint --strict --quiet --values "$$values" charts/*/ || exit 1; \
	done
	cmp crds/ecraudit.io.yaml charts/ecr-audit-operator/files/crds/ecraudit.io.yaml
	promtool check rules charts/*/files/alerts.yaml
	promtool test rules tests/alerts/*_test.yaml
	python3 tests/dashboard/check.py

chart-snapshots: ## write what the chart renders, to be reviewed
	UPDATE_SNAPSHOTS=1 $(CARGO) test --locked --test chart what_is_rendered

fmt: ## format the code
	$(CARGO) fmt

docs: ## write the reference pages and the chart's README from the code
	python3 docs/generate.py

crds: ## write the definitions of the custom resources from the code
	$(CARGO) run --locked --quiet -- crd > target/ecraudit.io.yaml
	cp target/ecraudit.io.yaml charts/ecr-audit-operator/files/crds/
	mv target/ecraudit.io.yaml crds/

testbed: ## build what the tests run against, into the user's cache folder
	$(TESTBED) python
	$(TESTBED) binaries

demo: testbed ## show the main job for real: API server, CloudTrail with a story, operator, alerts, page
	$(CARGO) build --locked --bin ecr-audit --example replay --example demo
	$(CARGO) run --locked --quiet --example demo

control-plane: ## run a control plane until Ctrl-C; prints its KUBECONFIG
	$(CARGO) run --locked --quiet --example testbed

deny: ## check the licences and sources of dependencies
	PATH="$$($(TESTBED) python):$$PATH" $(CARGO) deny --locked check licenses bans sources

clean: ## remove build output; the test programs stay in the cache folder
	$(CARGO) clean
