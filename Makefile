# `make` without a target lists the targets.

SHELL := /bin/bash
.DEFAULT_GOAL := help

GO       ?= go
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS  := -s -w -X main.version=$(VERSION)
# How long each fuzz target runs: make fuzz FUZZTIME=5m
FUZZTIME ?= 30s
# Build tags. make build TAGS=nocloud builds without buckets and the SDKs of the clouds.
TAGS     ?=
# Excludes the unused gRPC transport of Google's storage client, which costs 13 MB on disk and in memory.
LEAN     := disable_grpc_modules
# The database of `make kill` and `make storm`: sqlite or postgres; both if it is empty.
STATE    ?=
# Where the targets man and completions write: make man DIST=build
DIST     ?= dist
# Additional arguments for `make run`: make run ARGS='--json'
ARGS     ?=
EXE      := $(shell $(GO) env GOEXE)
LINT     := $(GO) tool -modfile=internal/lint/go.mod golangci-lint

# Only the race detector needs a C compiler.
export CGO_ENABLED = 0

.PHONY: help
help: ## list the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z0-9-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## build bin/kbsync
	$(GO) build -trimpath -tags '$(LEAN) $(TAGS)' -ldflags '$(LDFLAGS)' -o bin/kbsync$(EXE) ./cmd/kbsync

.PHONY: run
run: build ## sync examples/handbook into the embedded emulator
	bin/kbsync$(EXE) sync --config examples/handbook.yaml --emulator $(ARGS)

# The tests of processes that are killed, paused, restarted or cut off wait out leases and the minute before a document is sent again. They
# take several minutes: make postgres-kill runs them.
LONG := TestPostgres(Killed|Others|Paused|CutOff|Late|Restart)

.PHONY: test
test: ## run the tests; those of buckets and of PostgreSQL need `make servers`
	$(GO) test -timeout 10m -skip '$(LONG)' ./...
	$(GO) -C internal/deploytest test -timeout 5m ./...
	@$(MAKE) --silent --no-print-directory --jobs=2 --output-sync=target test-clouds test-browser test-bench

# For more changes in the tests of notifications: make test-clouds CHANGES=5000
.PHONY: test-clouds
test-clouds: ## run the tests against local S3, Google Cloud Storage and Azure servers and brokers
	@.ci/servers missing || true
	$(GO) -C internal/cloudtest test -timeout 10m -parallel 8 ./...

# To use more documents: make test-browser KBSYNC_BROWSER_DOCUMENTS=1000000
.PHONY: test-browser
test-browser: ## run the tests of the pages in Chromium (needs make servers)
	$(GO) -C internal/browsertest test -timeout 10m ./...

.PHONY: servers
servers: ## install the servers for the tests of buckets into bin/servers
	.ci/servers install

# Under the race detector the tests of behaviour run on SQLite only: the goroutines are the same on both databases, and those of
# the leases have tests of their own. The plans of queries and the tests of several processes would only be slower. Of the
# stories it runs those in which uploads, scans, signals and reloads meet.
RACE_STORIES := watch|reload|drain|interrupted|sync|batching|hooks|outage|moved|refused|slow|bucket|cut
RACE_SKIP := TestHotQueries|TestGoExamples|TestPostgres|^Test.*/^postgres$$|TestScripts|TestKilledAtAnyMoment
RACE := CGO_ENABLED=1 $(GO) test -race -timeout 15m -skip '$(RACE_SKIP)'

.PHONY: race
race: ## run the tests under the race detector (needs a C compiler)
	$(RACE) ./...
	CGO_ENABLED=1 $(GO) test -race -timeout 15m -run 'TestScripts/^($(RACE_STORIES))$$' ./cmd/kbsync

# Where goroutines meet. SQLite under the race detector takes half of the time of the whole.
.PHONY: race-short
race-short: ## run the part of race for which .ci/run has the time
	$(RACE) ./internal/hooks ./internal/statuspage ./internal/process ./replycx/...
	$(RACE) -run 'Together|Lock|Full|Starve|Several|Processes|Stop|Breaker|Pause|Gate|Reload|Hook|Watch|Feed|Wake|Woken' \
		./state ./ingest ./tracker ./watcher ./internal/engine

# go test can fuzz only one target at a time.
.PHONY: fuzz
fuzz: ## run every fuzz target for FUZZTIME (30s)
	@set -euo pipefail; grep -rEo --include='*_test.go' '^func Fuzz[A-Za-z0-9_]+' . | sort | \
	while IFS=: read -r file func; do \
		echo "== $${func#func } in $$(dirname "$$file")"; \
		$(GO) test -run '^$$' -fuzz "^$${func#func }\$$" -fuzztime $(FUZZTIME) "$$(dirname "$$file")" </dev/null; \
	done

# To change the tree, the number or the database: make kill KILL_TREE=~/documents KILLS=100 STATE=postgres
.PHONY: kill
kill: ## kill a sync of the Go tree 40 times, on both databases, then compare the accepted documents with the tree
	STATE="$(STATE)" KILL_TREE="$${KILL_TREE:-$$($(GO) env GOROOT)}" KILLS="$${KILLS:-40}" $(GO) test -count=1 -timeout 20m -run TestKilledAtAnyMoment -v ./cmd/kbsync

# To repeat one seed: make storm STORM_SEED=17 STORM_SEEDS=1 STATE=sqlite
.PHONY: storm
storm: ## run 50 storms of 5,000 operations and disturbances of the watch on each database, half of them with kills
	STATE="$(STATE)" STORM_OPS="$${STORM_OPS:-5000}" STORM_SEEDS="$${STORM_SEEDS:-50}" $(GO) test -count=1 -timeout 5h -run TestStorm -v ./cmd/kbsync

# To repeat a round: make chaos CHAOS=1s CHAOS_SEED=17 STATE=sqlite. Mounting the small disk that is filled needs root.
.PHONY: chaos
chaos: ## change trees and rules for 30 minutes while API, network, database and disk fail, clocks step and processes are killed, on both databases
	overlay=$$($(GO) run ./internal/steppedclock) && \
		STATE="$(STATE)" CHAOS="$${CHAOS:-30m}" $(GO) test -overlay "$$overlay" -count=1 -timeout 5h -parallel 4 -run TestChaos -v ./cmd/kbsync

.PHONY: crash-table
crash-table: ## kill a process, fail and stall at every occurrence of every boundary of a pass, on both databases
	CRASH_TABLE=all $(GO) test -count=1 -timeout 2h -parallel 4 -run TestFaultAtEachBoundary ./state

.PHONY: defects
defects: ## plant the defects of internal/defects in the code, one at a time, and check that a named test finds each
	DEFECTS=all $(GO) test -count=1 -timeout 1h -v ./internal/defects

# To change the numbers: make postgres-kill POSTGRES_OBJECTS=2000 POSTGRES_KILLS=10
.PHONY: postgres-kill
postgres-kill: ## run several processes on PostgreSQL and 20,000 objects; kill, pause, restart and cut them off
	POSTGRES_OBJECTS="$${POSTGRES_OBJECTS:-20000}" POSTGRES_KILLS="$${POSTGRES_KILLS:-30}" TEST_SERVERS=all \
		$(GO) test -count=1 -timeout 1h -parallel 1 -run TestPostgres -v ./cmd/kbsync

.PHONY: postgres-workers
postgres-workers: ## measure the throughput of 1, 2, 4 and 8 workers on PostgreSQL with an API that takes 200 ms
	TEST_SERVERS=all $(GO) test -run '^$$' -bench BenchmarkPostgresWorkers -benchtime 1x -timeout 1h ./cmd/kbsync

.PHONY: latency
latency: ## measure the time from closing a file to receiving its upload, p50 and p99
	$(GO) test -run '^$$' -bench BenchmarkLatency ./cmd/kbsync

# To change the duration: make soak SOAK=10m
.PHONY: soak
soak: ## measure memory, files, goroutines and processes of an hour of watch that is disturbed, with a failing API, and plot them in bin/soak
	SOAK="$${SOAK:-1h}" SOAK_OUT="$${SOAK_OUT:-$$PWD/bin/soak}" $(GO) test -run '^$$' -bench BenchmarkSoak -benchtime 1x -timeout 5h ./cmd/kbsync

# To change the duration or the number: make idle IDLE=1m IDLE_FILES=1000
.PHONY: idle
idle: ## measure CPU time and memory of five idle minutes of watch with 100,000 files
	IDLE="$${IDLE:-5m}" $(GO) test -timeout 40m -run '^$$' -bench BenchmarkIdle ./cmd/kbsync

.PHONY: bench-go
bench-go: ## run the Go benchmarks of the packages
	$(GO) test -run '^$$' -bench . -benchmem -timeout 30m ./...

BENCH = $(GO) -C internal/bench run . -source "$$PWD"

# It installs rclone if it is missing. For 1,000,000 documents, one row, or corpora that stay: make bench ARGS='-million -only P5,growth -dir /var/tmp/bench'
.PHONY: bench
bench: build ## compare kbsync with other programs in one run (half an hour): bin/bench/results.md, results.json and plots
	$(GO) build -trimpath -tags nocloud -ldflags '$(LDFLAGS)' -o bin/peers/kbsync-nocloud$(EXE) ./cmd/kbsync
	$(BENCH) -kbsync-nocloud bin/peers/kbsync-nocloud$(EXE) $(ARGS)

.PHONY: bench-quick
bench-quick: build ## the same with smaller corpora and fewer rounds, in under two minutes, into bin/bench-quick
	$(BENCH) -scale quick -out bin/bench-quick $(ARGS)

.PHONY: test-bench
test-bench: build ## check that make bench runs, with tiny corpora
	$(GO) -C internal/bench test -timeout 10m ./...

# To change the number: make plans PLAN_DOCUMENTS=5000000
.PHONY: plans
plans: ## check the plan of every hot query in databases of 1,000,000 documents
	PLAN_DOCUMENTS="$${PLAN_DOCUMENTS:-1000000}" $(GO) test -count=1 -timeout 20m -run TestHotQueries -v ./state

.PHONY: bench-listing
bench-listing: ## measure resident memory of scans of 10,000 and 1,000,000 objects
	$(GO) test -run '^$$' -bench BenchmarkListingMemory -benchtime 1x ./watcher

# It includes rclone if that is installed. To change the number: make bench-s3 BENCH_OBJECTS=20000
.PHONY: bench-s3
bench-s3: ## compare with rclone on an unchanged S3 bucket of 100,000 objects (needs make servers)
	BENCH_OBJECTS="$${BENCH_OBJECTS:-100000}" $(GO) -C internal/cloudtest test -run '^$$' -bench BenchmarkUnchangedS3 -benchtime 5x -timeout 1h .

.PHONY: bench-million
bench-million: ## measure time and memory of a sync of 1,000,000 unchanged objects
	$(GO) -C internal/cloudtest test -run '^$$' -bench BenchmarkUnchangedMillion -benchtime 3x -timeout 1h .

# 10,000 files from the first byte to the last acceptance; the state beyond its keys, in training and after it; 1,000,000 documents against 10,000.
.PHONY: bench-targets
bench-targets: ## print P2 (files/s), P10 (state-bytes/document, once all are trained) and P4 (time-ratio, peak-ratio, peak-MiB)
	$(GO) test -run '^$$' -bench BenchmarkFirstSync -benchtime 3x -timeout 30m ./cmd/kbsync
	@$(MAKE) --silent --no-print-directory bench-million

# VULNDB names another copy of the database: make security VULNDB=file:///srv/vulndb
.PHONY: security
security: ## look for unsafe code (gosec), and for known vulnerabilities of the modules (govulncheck, with the database at vuln.go.dev)
	$(LINT) run --allow-parallel-runners --default none --enable gosec
	$(GO) tool -modfile=internal/lint/go.mod govulncheck $(if $(VULNDB),-db $(VULNDB)) ./...

.PHONY: lint
lint: ## run golangci-lint, gofmt, and vet for Windows and macOS
	@set -euo pipefail; unformatted=$$(gofmt -l .); \
	if [[ -n $$unformatted ]]; then echo "run gofmt -w on:"; echo "$$unformatted"; exit 1; fi
	$(LINT) run --allow-parallel-runners
	GOOS=windows $(GO) vet -tags nocloud ./...
	GOOS=darwin $(GO) vet -tags nocloud ./...
	$(GO) -C internal/deploytest vet ./...
	$(GO) -C internal/browsertest vet ./...
	$(GO) -C internal/bench vet ./...
	$(GO) -C internal/release vet ./...
	$(GO) vet -tags nocloud ./watcher ./internal/snapshot ./cmd/...

.PHONY: cover
cover: ## run the tests and print the coverage of each function
	$(GO) test -timeout 10m -coverpkg=./... -coverprofile=coverage.out ./...
	$(GO) tool cover -func=coverage.out

.PHONY: release-check
release-check: ## build for all six platforms, and without buckets, into dist/ and print the sizes
	@mkdir -p dist
	@set -euo pipefail; for os in linux darwin windows; do for arch in amd64 arm64; do \
		ext=; if [[ $$os = windows ]]; then ext=.exe; fi; \
		out=dist/kbsync-$$os-$$arch$$ext; \
		GOOS=$$os GOARCH=$$arch $(GO) build -trimpath -tags '$(LEAN)' -ldflags '$(LDFLAGS)' -o $$out ./cmd/kbsync; \
		printf '%-32s %6.1f MB\n' $$out $$(awk -v b=$$(wc -c <$$out) 'BEGIN {print b / 1e6}'); \
	done; done
	@set -euo pipefail; out=dist/kbsync-linux-amd64-nocloud; \
		GOOS=linux GOARCH=amd64 $(GO) build -trimpath -tags nocloud -ldflags '$(LDFLAGS)' -o $$out ./cmd/kbsync; \
		printf '%-32s %6.1f MB\n' $$out $$(awk -v b=$$(wc -c <$$out) 'BEGIN {print b / 1e6}')

.PHONY: reference
reference: ## write docs/reference.md and docs/kbsync.schema.json from the program
	$(GO) test -count=1 ./internal/config -run TestSchemaIsUpToDate -update
	$(GO) test -count=1 ./cmd/kbsync -run TestReferenceIsUpToDate -update

# The pages have the date of the commit, so that two builds write equal files.
.PHONY: man
man: ## write the man pages into dist/man
	rm -rf $(DIST)/man
	SOURCE_DATE_EPOCH=$${SOURCE_DATE_EPOCH:-$$(git log -1 --format=%ct)} $(GO) test -count=1 -ldflags '-X main.version=$(VERSION)' ./cmd/kbsync -run TestManPages -man $(abspath $(DIST))/man

.PHONY: completions
completions: build ## write the completions for bash, zsh, fish and PowerShell into dist/completions
	@mkdir -p $(DIST)/completions
	bin/kbsync$(EXE) completion bash >$(DIST)/completions/kbsync.bash
	bin/kbsync$(EXE) completion zsh >$(DIST)/completions/_kbsync
	bin/kbsync$(EXE) completion fish >$(DIST)/completions/kbsync.fish
	bin/kbsync$(EXE) completion powershell >$(DIST)/completions/kbsync.ps1

# The results have the time of the commit, so that two builds of it are equal.
RELEASE  = $(GO) -C internal/release run . -version '$(VERSION)' -time $${SOURCE_DATE_EPOCH:-$$(git log -1 --format=%ct)} \
	-source "$$PWD" -pages "$$PWD/$(DIST)" -out "$$PWD/$(DIST)/packages"
PLATFORM := $(shell $(GO) env GOOS)/$(shell $(GO) env GOARCH)

.PHONY: package
package: man completions ## write the archive, packages, image and bill of materials for this platform into dist/packages
	$(RELEASE) $(PLATFORM)="$$PWD/bin/kbsync$(EXE)"

.PHONY: packages
packages: man completions release-check ## write the same for all six platforms, and a Homebrew formula
	$(RELEASE) $(foreach os,linux darwin windows,$(foreach arch,amd64 arm64,$(os)/$(arch)="$$PWD/dist/kbsync-$(os)-$(arch)$(if $(filter windows,$(os)),.exe)"))
	cat $(DIST)/packages/SHA256SUMS

.PHONY: package-check
package-check: ## check dist/packages: install it, run its service under systemd and its image (Linux, as root)
	$(GO) -C internal/release test ./...
	.ci/packages

# The second build is in another directory, with an empty build cache and at another time. It takes several minutes.
.PHONY: reproducible
reproducible: ## build the last commit twice, in different directories, and compare the checksums
	@set -euo pipefail; dir=$$(mktemp -d); trap 'chmod -R u+w "$$dir"; rm -rf "$$dir"' EXIT; commit=$$(git rev-parse HEAD); \
	for copy in one two/deeper; do \
		git clone --quiet --no-hardlinks . "$$dir/$$copy"; git -C "$$dir/$$copy" checkout --quiet --detach "$$commit"; \
		if [[ $$copy = two/deeper ]]; then export GOCACHE=$$dir/cache; fi; \
		$(MAKE) --silent --no-print-directory -C "$$dir/$$copy" package VERSION='$(VERSION)'; \
	done; \
	diff "$$dir"/{one,two/deeper}/dist/packages/SHA256SUMS; cat "$$dir/one/dist/packages/SHA256SUMS"; echo "both builds are equal"

.PHONY: clean
clean: ## remove the files that the other targets create
	rm -rf bin dist coverage.out
