# Everything starts here. Each target first installs what the machine lacks (deploy/need.sh).

GO            ?= go
GOLANGCI_LINT  = v2.12.2
ARGS          ?=

.PHONY: dev test lint bench build npm

# A complete Watchword on this machine, with a demo application and an inbox of texts. ARGS="--ephemeral" forgets everything at the end.
dev:
	@deploy/need.sh go postgresql
	@$(GO) build -o bin/watchword ./cmd/watchword
	@exec bin/watchword dev $(ARGS)

# Everything, against a real PostgreSQL and a real browser.
test: npm
	@deploy/need.sh go gcc postgresql chromium
	$(GO) vet ./...
	$(GO) test -race -timeout 14m ./...

# Packages for tests alone: every package.json that is under version control, at the versions of its lockfile.
npm:
	@for file in $$(git ls-files '*package.json' ':!*/node_modules/*'); do \
		deploy/need.sh npm && \
		if [ ! $$(dirname $$file)/node_modules/.package-lock.json -nt $$(dirname $$file)/package-lock.json ]; then \
			(cd $$(dirname $$file) && npm ci --omit=dev --ignore-scripts --no-audit --no-fund && touch node_modules/.package-lock.json) || exit 1; \
		fi; \
	done

lint:
	@deploy/need.sh go
	@bin/golangci-lint version --short 2>/dev/null | grep -qx "$(GOLANGCI_LINT:v%=%)" || \
		GOBIN=$(CURDIR)/bin $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT)
	bin/golangci-lint run ./...

# What each request costs, and then whole sign-ins under load over loopback: throughput and percentiles.
bench: build
	@deploy/need.sh go postgresql
	$(GO) test -run '^$$' -bench . -benchmem $(ARGS) ./...
	$(GO) run ./internal/load -binary bin/watchword

# One static binary.
build:
	@deploy/need.sh go
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags "-s -w" -o bin/watchword ./cmd/watchword
