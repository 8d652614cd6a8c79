# Short names for what people run. .ci/run is the whole check.
.PHONY: help run test check race fuzz bench scale cost interop doors fault cluster abuse k8s apiserver build dist clean

BENCHSTAT = golang.org/x/perf/cmd/benchstat@v0.0.0-20260908200009-22c9c6c9d4da

help:            ## show this
	@grep -hE '^[a-z0-9]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

run:             ## the quickstart: everything in one process
	go run ./examples/quickstart

build:           ## both binaries, into bin/
	CGO_ENABLED=0 go build -trimpath -o bin/ ./cmd/authority ./cmd/sidecar

dist:            ## static binaries and minimal root file systems, into dist/
	deploy/dist.sh

test:            ## the tests that need only Go
	go test ./...

race:            ## the same under the race detector
	go test -race ./...

fuzz:            ## one fuzz target: make fuzz PKG=./internal/wire TARGET=FuzzOpen
	go test -run '^$$' -fuzz '^$(TARGET)$$' -fuzztime 60s $(PKG)

bench: SHELL := bash
bench: .SHELLFLAGS := -o pipefail -c
bench:           ## the benchmarks of docs/benchmarks.md, and the medians of five runs
	mkdir -p bin
	go test -run '^$$' -bench . -benchtime 2x -count 5 ./internal/broadcast ./pkg/feed | tee bin/bench.txt
	go test -run '^$$' -bench RevokeCall -benchtime 3x -count 5 ./cmd/authority/app | tee -a bin/bench.txt
	go test -run '^$$' -bench . -count 5 -timeout 30m ./pkg/denylist ./pkg/verifier | tee -a bin/bench.txt
	go test -run '^$$' -bench OpenMemory -benchtime 2x -count 5 ./internal/sidecar | tee -a bin/bench.txt
	go run $(BENCHSTAT) -confidence 0.9 medians=bin/bench.txt

scale:           ## what must hold at ten million entries (minutes)
	go test -count=1 -tags scale -timeout 30m -v -run '^(TestExact|TestSoakFlat)$$' ./pkg/denylist
	go test -count=1 -tags scale -timeout 30m -v ./test/scale

cost:            ## what a request costs, beside other proxies (needs HAProxy; minutes)
	go test -count=1 -tags cost -timeout 30m -v ./test/cost

interop:         ## other languages and a real identity provider (needs Node)
	cd test/interop && npm ci --no-audit --no-fund
	go test -count=1 -tags interop -v ./test/interop/...

doors:           ## the same requests through every door (needs nginx, Caddy and HAProxy; as root)
	go test -count=1 -tags doors -timeout 10m -v ./test/doors

fault:           ## kill -9, cut networks, full disks (needs root for a full disk)
	go test -count=1 -tags fault -timeout 30m -v ./test/fault/... ./test/streams

cluster:         ## the cluster of deploy/k8s on one machine, killed piece by piece (five minutes)
	go test -count=1 -tags fault -timeout 20m -v ./test/cluster -args -during 5m

abuse:           ## floods, forgeries, slow senders, a million lines (minutes)
	go test -count=1 -tags fault -timeout 30m -v ./test/abuse -args -during 30s -lines 1000000 -logins 10000

k8s:             ## the manifests of deploy/k8s, built and held against the API's types (as root)
	cd test/k8s && go test -count=1 -timeout 5m ./...

apiserver:       ## deploy/k8s on a real API server, built from its source (minutes)
	cd test/apiserver && go test -count=1 -timeout 30m -v ./...

check:           ## everything, as CI runs it
	.ci/run

clean:           ## what builds left behind
	rm -rf bin dist
