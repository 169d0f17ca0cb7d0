# `make` alone lists the targets.
SHELL := bash
GO    ?= go
ARGS  ?=
BIN   ?= bin
FUZZTIME ?= 30s

.DEFAULT_GOAL := help

help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## build bin/puppetsrv, -member and puppetsrvctl: static, stripped, reproducible
	CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false -ldflags '-s -w -buildid=' -o $(BIN)/ ./cmd/...

run: build ## start the two-datacenter playground; ARGS=-stop ends it
	@$(GO) build -o bin/playground ./internal/playground && exec bin/playground $(ARGS)

test: lint ## lint, and all tests with -race
	$(GO) test -race -timeout 20m ./...
	$(GO) test -run 'TestKills|TestLargeCA' ./internal/casync

lint: ## gofmt, vet, staticcheck
	@bad=$$(gofmt -l $$(git ls-files '*.go')); test -z "$$bad" || { echo "gofmt would change: $$bad"; exit 1; }
	$(GO) vet ./...
	$(GO) tool staticcheck ./...

bench: build ## ratios from one run: against CoreDNS file, detection, rebuild
	$(GO) run ./internal/bench $(ARGS)

embed-test: ## build an unmodified CoreDNS with the plugin in it and test that binary
	$(GO) run ./internal/embed $(ARGS)

lab: build ## the real Puppet stack and its scenarios, as root on Debian 12; SCENARIO=name runs one
	@$(GO) build -o $(BIN)/lab ./lab && exec $(BIN)/lab run $(SCENARIO) $(ARGS)

lab-up: build ## start that stack, leave it running, and say what to try
	@$(GO) build -o $(BIN)/lab ./lab && exec $(BIN)/lab up

lab-install: ## install the packages that it is made of, with which no test is skipped
	@$(GO) build -o $(BIN)/lab ./lab && exec $(BIN)/lab install

lab-down: ## end it
	@$(GO) build -o $(BIN)/lab ./lab && exec $(BIN)/lab down

fuzz: ## fuzz every target for FUZZTIME each (default 30s)
	@set -e; for pkg in $$($(GO) list ./...); do \
	  for f in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
	    echo "$$pkg $$f"; $(GO) test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) $$pkg; \
	  done; done

clean: ## remove what the targets made
	rm -rf bin run

.PHONY: help build run test lint bench embed-test lab lab-up lab-install lab-down fuzz clean
