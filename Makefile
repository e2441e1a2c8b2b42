# Everything needs Go alone, except the targets that say what else they need.
export CGO_ENABLED = 0

.PHONY: help build test test-purego test-arm64 race lint asm fuzz bench bench-convert bench-quantize bench-merge bench-peers bench-train bench-stories interop interop-python clean

help:
	@echo "make build    build ./nibble"
	@echo "make test     vet and test everything"
	@echo "make test-purego  test what has assembly, without it"
	@echo "make test-arm64   test the kernels as an arm64 program (needs qemu-user)"
	@echo "make race     the same under the race detector (needs a C compiler)"
	@echo "make lint     gofmt, go vet, staticcheck"
	@echo "make asm      write the assembly anew"
	@echo "make fuzz     fuzz every parser for FUZZTIME each (default 30s)"
	@echo "make bench    the Go benchmarks"
	@echo "make bench-convert  conversions of a large checkpoint beside cp"
	@echo "make bench-quantize NF4 of a large checkpoint beside reading and writing, GGUF beside llama.cpp (installs node-llama-cpp with npm)"
	@echo "make bench-merge    merging beside cp, beside quantizing alone and beside PEFT (pip); unmerge, extract"
	@echo "make bench-peers    products of matrices beside OpenBLAS (as root installs libopenblas-dev), NF4 beside bitsandbytes (pip)"
	@echo "make bench-train    training over models of real shapes, one of them beside PyTorch and PEFT (pip)"
	@echo "make bench-stories  LoRA, QLoRA and full fine-tuning of the stories model, each tuned"
	@echo "make interop  compare with llama.cpp (installs node-llama-cpp with npm)"
	@echo "make interop-python  compare with transformers, PEFT and bitsandbytes (installs them with pip)"

build:
	go build -trimpath -ldflags "-s -w" -o nibble ./cmd/nibble

test:
	go vet ./...
	go test -timeout 18m ./...

# The packages whose inner loops are in assembly where the machine has it.
KERNELS = ./internal/kernel/... ./nf4/... ./tensor/...

test-purego:
	go vet -tags purego $(KERNELS)
	go test -tags purego $(KERNELS)

# Every test of the kernels, cross-built; only what runs them must be there.
QEMU_ARM64 ?= $(firstword $(shell command -v qemu-aarch64-static qemu-aarch64 2>/dev/null))
test-arm64:
	GOARCH=arm64 go build ./...
ifeq ($(QEMU_ARM64),)
	@echo "test-arm64: skipped, there is no qemu-aarch64 (Debian: apt-get install qemu-user-static)"
else
	GOARCH=arm64 go test -exec $(QEMU_ARM64) ./internal/kernel
endif

race:
	CGO_ENABLED=1 go test -race -timeout 30m ./...

lint:
	@test -z "$$(gofmt -l .)" || { gofmt -l .; echo "run gofmt -w ."; exit 1; }
	go vet ./...
	go tool -modfile=internal/tools/go.mod staticcheck ./...

# Writes internal/kernel/simd anew. A test fails where it is not up to date.
asm:
	@cd internal/kernel/_asm && for group in $$(go run . -list); do \
		echo $$group; go run . -group $$group -pkg simd -out ../simd/$${group}_amd64.s -stubs ../simd/$${group}_amd64.go || exit 1; \
	done

FUZZTIME ?= 30s
fuzz:
	@go list ./... | while read -r pkg; do \
		list=$$(go test -list '^Fuzz' $$pkg) || { echo "$$list"; exit 1; }; \
		for f in $$(echo "$$list" | grep '^Fuzz'); do \
			echo "$$pkg $$f"; go test -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 1000x $$pkg || exit 1; \
		done; \
	done

# A checkpoint of 8 GB is made once in nibble-bench, which wants 32 GB of disk.
BENCH_FLAGS ?=
bench-convert: build
	go run ./internal/bench $(BENCH_FLAGS)

# A checkpoint of 8 GB is made once in nibble-bench, and for llama.cpp one of 2 GB:
# BENCH_FLAGS="-gb 30 -gguf-gb 4" for others, -only NF4 or -only q6_k for a part.
bench-quantize: build
	llamacpp=$$(testdata/interop/llamacpp.sh) && \
		go run ./internal/bench -quantize -llama "$$llamacpp/node_modules/@node-llama-cpp/linux-x64/bins/linux-x64" $(BENCH_FLAGS)

# A checkpoint of 8 GB is made once in nibble-bench, with an adapter of rank 64, and
# smaller ones for all but the first case: BENCH_FLAGS="-gb 30 -only cp" for a larger
# one alone.
bench-merge: build
	python=$$(testdata/interop/python.sh) && go run ./internal/bench -merge -python "$$python" $(BENCH_FLAGS)

# OpenBLAS is called by a C program that is compiled on the spot. As root on Debian it
# is installed if it is not there. bitsandbytes comes with the Python of interop-python
# (INTEROP_PYTHON names one that has it).
bench-peers:
	@echo 'int main(void) { return 0; }' | cc -x c - -lopenblas -o /dev/null 2>/dev/null || { \
		[ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get install -y --no-install-recommends gcc libc6-dev libopenblas-dev; \
	} || { echo "bench-peers needs a C compiler and OpenBLAS (Debian: apt-get install gcc libopenblas-dev)"; exit 1; }
	python=$$(testdata/interop/python.sh) && go run ./internal/bench -peers -python "$$python" $(BENCH_FLAGS)

# Models of random weights are made in nibble-bench when their first case runs and removed
# after the last: 4 GB for the 7B, 35 GB for the 65B. BENCH_FLAGS="-only 7b-r16" for a
# case, "-only 7b,qwen" for those that begin so, -keep to keep the models. All of it takes
# some four hours on two processors, of which the 65B takes half.
bench-train: build
	python=$$(testdata/interop/python.sh) && go run ./internal/bench -train -python "$$python" $(BENCH_FLAGS)

# Draws docs/stories-*.png. BENCH_FLAGS="-wikisql DIR" names the directory of mlx-lm's
# WikiSQL, which is not here; -only Shakespeare does without.
bench-stories: build
	go run ./internal/bench -stories $(BENCH_FLAGS)

bench:
	go test -run '^$$' -bench . -benchmem ./...

# The embedded model, and a tiny random one with everything that it lacks.
STORIES = cmd/nibble/demo/stories260K
TINY = testdata/tiny_llama3
# Those that llama.cpp knows.
FAMILIES = $(dir $(wildcard testdata/families/*/convert_f32.json))

interop: build
	./nibble demo --out nibble-demo --force --quiet
	testdata/interop/run.sh ./nibble $(STORIES) $(TINY) nibble-demo/merged $(FAMILIES)
	testdata/interop/run_adapter.sh ./nibble $(STORIES) nibble-demo/adapters

interop-python: build
	testdata/interop/run_python.sh ./nibble $(STORIES)

clean:
	rm -f nibble
