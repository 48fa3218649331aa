# One verb per target; CI calls the same ones.
SHELL   := /bin/bash
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
COMMIT  := $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
LDFLAGS := -s -w -funcalign=16 -X main.version=$(VERSION) -X main.commit=$(COMMIT)
PREFIX  ?= /usr
UNIT    ?= packaging/systemd/campaign-credsync.service
MINUTES ?= 10

.PHONY: build demo test faults mutate test-systemd test-systemd-all bench bench-filesystems bench-fleet soak lint vuln install clean

build: ## bin/campaign-credsync, static and stripped
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o bin/campaign-credsync ./cmd/campaign-credsync

demo: build ## the story, in the terminal; DEMO_VAULT=skip leaves out the part that needs a Vault, =build builds one without a terminal
	go build -o bin/demo ./test/demo
	CREDSYNC_BINARY=$(CURDIR)/bin/campaign-credsync bin/demo

test: ## every test, with the race detector; builds a real Vault at its first run
	go run ./test/vaultbuild
	go test -race -timeout 20m ./...

faults: ## every fault in its long form, with the race detector; about half an hour
	go run ./test/vaultbuild
	go test -race -v -count=1 -timeout 180m ./test/faults -full

mutate: ## breaks the product in one place at a time: the test that is there for it must turn red; about half an hour
	go run ./test/vaultbuild
	go run ./test/mutate

test-systemd: ## the unit, in a Debian 12 with systemd as PID 1; needs root
	go test -v -count=1 -timeout 20m -tags systemd ./test/systemd

test-systemd-all: ## the same in Debian 11, 12 and 13: systemd 247, 252 and 257
	for suite in bullseye bookworm trixie; do SYSTEMD_TEST_SUITE=$$suite $(MAKE) test-systemd || exit; done

bench: build ## the figures, as ratios in one run
	CREDSYNC_BINARY=$(CURDIR)/bin/campaign-credsync go run ./test/bench

bench-filesystems: build ## reverts beside their floor on each file system; needs root
	for kind in ext4 xfs btrfs tmpfs overlay; do echo "$$kind:"; CREDSYNC_BINARY=$(CURDIR)/bin/campaign-credsync go run ./test/bench -only reverts -on $$kind || exit; done

bench-fleet: ## 1,000 daemons and one real Vault, sealed for 5 of 12 minutes; fails when a bound does not hold
	go run ./test/fleet/bench -csv bin/fleet.csv

soak: ## every fault at random for MINUTES, then the bounds; builds a real Vault at its first run
	go run ./test/vaultbuild
	go test -count=1 -v -timeout $$(($(MINUTES)+15))m ./test/soak -minutes $(MINUTES)

lint:
	@bad=$$(gofmt -l $$(git ls-files '*.go')); test -z "$$bad" || { echo "gofmt would change: $$bad"; exit 1; }
	go vet ./... && go vet -tags systemd ./test/systemd
	go tool staticcheck ./... && go tool staticcheck -tags systemd ./test/systemd

vuln: ## needs the vulnerability database
	go tool govulncheck ./...

install: build
	install -D -m 0755 bin/campaign-credsync $(DESTDIR)$(PREFIX)/bin/campaign-credsync
	install -D -m 0644 $(UNIT) $(DESTDIR)$(PREFIX)/lib/systemd/system/campaign-credsync.service
	install -m 0644 packaging/systemd/campaign-credsync-activate.socket packaging/systemd/campaign-credsync-activate@.service $(DESTDIR)$(PREFIX)/lib/systemd/system/
	install -D -m 0640 packaging/systemd/config.example.yaml $(DESTDIR)/etc/campaign-credsync/config.example.yaml

clean:
	rm -rf bin
