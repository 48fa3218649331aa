# One verb per target; CI calls the same ones.
SHELL   := /bin/bash
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
COMMIT  := $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
LDFLAGS := -s -w -funcalign=8 -X main.version=$(VERSION) -X main.commit=$(COMMIT)
# Nothing here speaks HTTP/2: what net/http has of it is left out, 0.5 MB.
TAGS    := nethttpomithttp2
PREFIX  ?= /usr
UNIT    ?= packaging/systemd/campaign-credsync.service
ARCH    ?= $(shell go env GOARCH)
BINARY  ?= bin/campaign-credsync
MAINTAINER ?= campaign-credsync maintainers <maintainers@example.com>
DIST    ?= $(CURDIR)/dist
ARCHES  ?= amd64 arm64
# Of the commit, so that two builds of it are the same.
EPOCH   := $(shell git log -1 --format=%ct 2>/dev/null || echo 0)
# As deb and rpm sort it: a commit after a tag is newer than the tag, a candidate older. Without a tag, by the commit's time.
PACKAGE_VERSION ?= $(or $(shell git describe --tags --dirty=+dirty 2>/dev/null | sed -nE 's/^v//; s/-([0-9]+)-g([0-9a-f]+)/+\1.g\2/; s/-/~/g; /^[0-9]/p'),0.0.0~$(EPOCH).$(COMMIT))
MINUTES ?= 10

.PHONY: build manual docs package image release demo test faults mutate test-systemd test-systemd-all bench bench-filesystems bench-fleet soak lint lint-packages vuln install clean

build: ## bin/campaign-credsync, static and stripped
	CGO_ENABLED=0 GOARCH=$(ARCH) go build -trimpath -tags '$(TAGS)' -ldflags '$(LDFLAGS)' -o '$(BINARY)' ./cmd/campaign-credsync

manual: ## bin/manual: man pages and completions, from the help text and the table of the configuration's keys
	rm -rf bin/manual
	CGO_ENABLED=0 SOURCE_DATE_EPOCH=$(EPOCH) go run -trimpath -tags 'manual $(TAGS)' ./cmd/campaign-credsync bin/manual

docs: manual ## docs/configure.md, from the table of the configuration's keys; bin/html/: all documents, by mkdocs
	cp bin/manual/configure.md docs/configure.md
	rm -rf bin/documents && mkdir -p bin/documents
	git ls-files -z -- '*.md' docs packaging test/mutate test/nlserver test/world | grep -zv '_test\.go$$' | xargs -0 cp --parents -t bin/documents
	mkdocs build --strict --quiet --config-file packaging/mkdocs.yml

demo: build ## the story, in the terminal; DEMO_VAULT=skip leaves out the part that needs a Vault, =build builds one without a terminal
	go build -o bin/demo ./test/demo
	CREDSYNC_BINARY=$(CURDIR)/bin/campaign-credsync bin/demo

# Four packages at a time: most wait more than they compute.
test: ## every test, with the race detector; builds a real Vault at its first run
	go run ./test/vaultbuild
	go test -race -p 4 -timeout 40m ./...

faults: ## every fault in its long form, with the race detector; about half an hour
	go run ./test/vaultbuild
	go test -race -v -count=1 -timeout 180m ./test/faults -full

mutate: ## breaks the product in one place at a time: the test that is there for it must turn red; about half an hour
	go run ./test/vaultbuild
	go run ./test/mutate

test-systemd: ## the unit, in a Debian 12 with systemd as PID 1, the container image, a rollout on three; needs root
	go test -v -count=1 -timeout 20m -tags systemd $(TESTS) ./test/systemd

test-systemd-all: test-systemd ## the same in Debian 11, 12 and 13: systemd 247, 252 and 257; the container image, the rpm and the rollout once
	for suite in bullseye trixie; do SYSTEMD_TEST_SUITE=$$suite $(MAKE) test-systemd TESTS="-skip 'Image|Pages|PackagesRPM|Rollout'" || exit; done

bench: build ## the figures, as ratios in one run; wants an idle machine, as the next two
	CREDSYNC_BINARY=$(CURDIR)/bin/campaign-credsync go run ./test/bench

bench-filesystems: build ## reverts beside their floor on each file system; needs root
	for kind in ext4 xfs btrfs tmpfs overlay; do echo "$$kind:"; CREDSYNC_BINARY=$(CURDIR)/bin/campaign-credsync go run ./test/bench -only reverts -on $$kind || exit; done

bench-fleet: ## 1,000 daemons and one real Vault, sealed for 5 of 12 minutes; fails when a bound does not hold; test/fleet/plot draws it
	go run ./test/fleet/bench -csv bin/fleet.csv

soak: ## every fault at random for MINUTES, then the bounds; builds a real Vault at its first run
	go run ./test/vaultbuild
	go test -count=1 -v -timeout $$(($(MINUTES)+15))m ./test/soak -minutes $(MINUTES)

lint:
	@bad=$$(gofmt -l $$(git ls-files '*.go')); test -z "$$bad" || { echo "gofmt would change: $$bad"; exit 1; }
	go vet ./... && go vet -tags systemd ./test/systemd && go vet -tags manual ./cmd/campaign-credsync
	go tool staticcheck ./... && go tool staticcheck -tags systemd ./test/systemd && go tool staticcheck -tags manual ./cmd/campaign-credsync
	@if command -v shellcheck >/dev/null; then shellcheck -x $$(git grep -lE '^#!.*sh$$' -- .ci packaging); elif [ -n "$$CI" ]; then echo "shellcheck is not installed"; exit 1; else echo "shellcheck is not installed, not run"; fi

lint-packages: ## lintian and rpmlint, for the packages of this machine
	$(MAKE) package DIST=$(CURDIR)/bin/lint ARCHES=$(ARCH)
	lintian --fail-on error,warning bin/lint/*.deb
	rpmlint -c packaging/rpmlint.toml bin/lint/*.rpm

vuln: ## needs the vulnerability database
	go tool govulncheck ./...

install: build manual
	install -D -m 0755 '$(BINARY)' $(DESTDIR)$(PREFIX)/bin/campaign-credsync
	install -D -m 0644 $(UNIT) $(DESTDIR)$(PREFIX)/lib/systemd/system/campaign-credsync.service
	install -m 0644 packaging/systemd/campaign-credsync-activate.socket packaging/systemd/campaign-credsync-activate@.service $(DESTDIR)$(PREFIX)/lib/systemd/system/
	install -D -m 0644 packaging/systemd/config.example.yaml $(DESTDIR)/etc/campaign-credsync/config.example.yaml
	install -d $(addprefix $(DESTDIR)$(PREFIX)/share/,campaign-credsync/systemd/el8 man/man1 man/man5 bash-completion/completions zsh/vendor-completions fish/vendor_completions.d doc/campaign-credsync)
	install -m 0644 packaging/systemd/direct.conf packaging/systemd/notify-reload.conf $(DESTDIR)$(PREFIX)/share/campaign-credsync/systemd/
	install -m 0644 packaging/systemd/el8/campaign-credsync.service $(DESTDIR)$(PREFIX)/share/campaign-credsync/systemd/el8/
	install -m 0644 packaging/prometheus/campaign-credsync.rules.yml packaging/prometheus/scrape.example.yml packaging/grafana/campaign-credsync.json $(DESTDIR)$(PREFIX)/share/campaign-credsync/
	install -d $(DESTDIR)$(PREFIX)/share/campaign-credsync/rollout
	install -m 0755 packaging/rollout/rollout packaging/rollout/on-host $(DESTDIR)$(PREFIX)/share/campaign-credsync/rollout/
	install -m 0644 packaging/rollout/*.bash packaging/rollout/config.yaml packaging/rollout/hosts.example $(DESTDIR)$(PREFIX)/share/campaign-credsync/rollout/
	install -m 0644 bin/manual/man1/* $(DESTDIR)$(PREFIX)/share/man/man1/
	install -m 0644 bin/manual/man5/* $(DESTDIR)$(PREFIX)/share/man/man5/
	gzip -9nf $(DESTDIR)$(PREFIX)/share/man/man1/campaign-credsync*.1 $(DESTDIR)$(PREFIX)/share/man/man5/config.yaml.5
	install -m 0644 bin/manual/completions/bash/* $(DESTDIR)$(PREFIX)/share/bash-completion/completions/
	install -m 0644 bin/manual/completions/zsh/* $(DESTDIR)$(PREFIX)/share/zsh/vendor-completions/
	install -m 0644 bin/manual/completions/fish/* $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/
	install -m 0644 README.md CHANGELOG.md LICENSE docs/*.md $(DESTDIR)$(PREFIX)/share/doc/campaign-credsync/

# What the scripts read: by the environment, which takes any character.
package image release: export DIST := $(DIST)
package image release: export ARCHES := $(ARCHES)
package image release: export VERSION := $(VERSION)
package image release: export PACKAGE_VERSION := $(PACKAGE_VERSION)
package image release: export MAINTAINER := $(MAINTAINER)
package image release: export EPOCH := $(EPOCH)

package: ## dist/: deb, rpm and tar.gz for amd64 and arm64
	rm -rf -- "$$DIST" && mkdir -p -- "$$DIST"
	for arch in $(ARCHES); do ARCH=$$arch MAKE='$(MAKE)' packaging/package || exit; done

image: ## dist/: an OCI archive for amd64 and for arm64, without a container engine
	mkdir -p -- "$$DIST"
	for arch in $(ARCHES); do ARCH=$$arch MAKE='$(MAKE)' packaging/image || exit; done

release: ## dist/ of the tag VERSION, signed with the gpg key SIGN_KEY; UNSIGNED=1 leaves that out, SKIP_TESTS=1 the tests
	@MAKE='$(MAKE)' packaging/release/release

clean:
	rm -rf bin dist
