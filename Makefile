# `make` alone lists the targets.
SHELL := bash
GO    ?= go
ARGS  ?=
BIN   ?= bin

.DEFAULT_GOAL := help

help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## build bin/puppetsrv: static, stripped, reproducible
	CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false -ldflags '-s -w -buildid=' -o $(BIN)/ ./cmd/puppetsrv

run: build ## start the two-datacenter playground; ARGS=-stop ends it
	@$(GO) build -o bin/playground ./internal/playground && exec bin/playground $(ARGS)

test: ## gofmt, vet, staticcheck and all tests with -race
	@bad=$$(gofmt -l $$(git ls-files '*.go')); test -z "$$bad" || { echo "gofmt would change: $$bad"; exit 1; }
	$(GO) vet ./...
	$(GO) tool staticcheck ./...
	$(GO) test -race ./...

bench: build ## ratios from one run: against CoreDNS file, detection, rebuild
	$(GO) run ./internal/bench $(ARGS)

embed-test: ## build an unmodified CoreDNS with the plugin in it and test that binary
	$(GO) run ./internal/embed $(ARGS)

fuzz: ## fuzz each target for FUZZTIME (default 30s)
	@for t in $$($(GO) test -list '^Fuzz' ./... | awk '/^Fuzz/'); do :; done

clean: ## remove what the targets made
	rm -rf bin run

.PHONY: help build run test bench embed-test fuzz clean
