# What can be done here. The work itself is in .ci/ and in the folders; this file names it.

.DEFAULT_GOAL := help
.PHONY: help run deps build web test e2e e2e-full bench-call bare lint licences man fuzz clean
MAKEFLAGS += --no-print-directory

help: ## list what can be done
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## a clinic with one room to try out, on this machine; ends with Ctrl-C
	@provisioning/tryout/run

deps: ## install what the machine lacks (Debian and npm packages), build the pages
	@.ci/deps
	@.ci/web

build: ## build the programs into build/bin
	@.ci/deps build
	@.ci/build

web: ## build the pages into provisioning/web/dist
	@.ci/deps build
	@.ci/web

test: ## vet, layer law, all tests but the browsers' (at most 12 minutes with empty caches)
	@.ci/deps
	@.ci/build
	@.ci/test

e2e: ## room, hub, SFU and a real browser together
	@.ci/deps
	@.ci/build
	@.ci/e2e

e2e-full: ## the same, with all that takes long
	@.ci/deps
	@.ci/build
	@.ci/e2e -full

bench-call: ## figures of a call against its rivals, in one run
	@.ci/deps
	@.ci/build
	@go run ./daemon/e2e/benchcall

bare: ## all of .ci/run in a fresh Debian tree with empty caches (root; DEBIAN_MIRROR, BARE_RELEASE)
	@.ci/bare

lint: ## gofmt, vet, staticcheck, shellcheck
	@.ci/lint

licences: ## write THIRD-PARTY from what is linked now
	@go test ./daemon -run '^TestThirdParty$$' -count=1 -update-third-party
	@echo "licences: THIRD-PARTY is written"

man: ## write the programs' manual pages into build/man
	@.ci/deps build
	@.ci/build
	@go -C .ci/tools run ./mangen -bin "$(CURDIR)/build/bin" -out "$(CURDIR)/build/man"

fuzz: ## every fuzz target for 20 seconds (FUZZTIME)
	@.ci/fuzz

clean: ## remove what was built; the try-out's state in build/tryout too
	rm -rf build provisioning/web/node_modules
	find provisioning/web/dist -mindepth 1 ! -name .gitkeep -delete
