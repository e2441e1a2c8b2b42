package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/kernel"
	"github.com/seed18967229/nibble/internal/speed"
)

// products are the shapes that nibble's products of matrices are measured with, M x N
// x K of y = x Wᵀ.
var products = [][3]int{{512, 4096, 4096}, {2048, 2048, 2048}, {128, 11008, 4096}}

// peers times nibble and its peers in turn.
func peers(ctx context.Context, o *options) error {
	dir, err := os.MkdirTemp("", "nibble-peers")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	rounds := max(7, o.runs)
	for _, c := range []struct {
		name string
		run  func(ctx context.Context, o *options, dir string, rounds int) error
	}{{"OpenBLAS", blas}, {"bitsandbytes", bitsandbytes}} {
		if strings.Contains(c.name, o.only) {
			if err := c.run(ctx, o, dir, rounds); err != nil {
				return err
			}
		}
	}
	return nil
}

// blas times products of matrices by nibble and by OpenBLAS in turn, and prints
// tables of the medians and of the best, with the machine's multiply-adds from the same
// rounds.
func blas(ctx context.Context, _ *options, dir string, rounds int) error {
	program := filepath.Join(dir, "gemm")
	cc := exec.CommandContext(ctx, "cc", "-O2", "-o", program, "internal/bench/peers/gemm.c", "-lopenblas")
	if out, err := cc.CombinedOutput(); err != nil {
		return hint.Add(fmt.Errorf("cc: %w\n%s", err, out), "this needs a C compiler and OpenBLAS; Debian: apt-get install gcc libopenblas-dev")
	}
	ask := exec.CommandContext(ctx, program, "version")
	ask.Env = environment(1)
	version, err := ask.Output()
	if err != nil {
		return err
	}
	var variants []string // not plain Go, which takes as long as all the rest
	for _, v := range kernel.Variants() {
		if v != "go" {
			variants = append(variants, v)
		}
	}
	if len(variants) == 0 {
		variants = kernel.Variants()
	}
	fmt.Printf("%s, %d rounds; %s\n\n", speed.CPU(), rounds, strings.Join(strings.Fields(string(version)), " "))
	var list []*peer
	for _, s := range products {
		for _, n := range slices.Compact([]int{1, runtime.GOMAXPROCS(0)}) {
			list = append(list, newPeer(program, s, n, variants))
		}
	}
	for range rounds {
		for _, p := range list {
			if err := p.round(ctx); err != nil {
				return err
			}
		}
	}
	for _, t := range []struct {
		name string
		of   func(speed.Rates) float64
	}{{"median", speed.Rates.Median}, {"best", speed.Rates.Best}} {
		table(t.name, list, t.of)
	}
	return nil
}

// table prints one figure of each measurement in GFLOP/s, with its share of the
// multiply-adds of the same variant, OpenBLAS' of the fastest one's.
func table(name string, list []*peer, of func(speed.Rates) float64) {
	variants := list[0].variants
	head := []string{name + ", M x N x K", "threads"}
	for _, v := range variants {
		head = append(head, "nibble "+v)
	}
	head = append(head, "OpenBLAS")
	for _, v := range variants {
		head = append(head, "multiply-adds "+v)
	}
	head = append(head, "nibble over OpenBLAS")
	fmt.Printf("| %s |\n|%s\n", strings.Join(head, " | "), strings.Repeat("---|", len(head)))
	for _, p := range list {
		gflops := func(r speed.Rates) float64 { return of(r) / 1e9 }
		cell := func(r, peak speed.Rates) string {
			return fmt.Sprintf("%.0f (%.0f %%)", gflops(r), 100*gflops(r)/gflops(peak))
		}
		row := []string{fmt.Sprintf("%d x %d x %d", p.m, p.n, p.k), strconv.Itoa(p.threads)}
		peaks := p.rates[len(variants):]
		for i := range variants {
			row = append(row, cell(p.rates[i], peaks[i]))
		}
		row = append(row, cell(p.openblas, peaks[0]))
		for i := range variants {
			row = append(row, fmt.Sprintf("%.0f", gflops(peaks[i])))
		}
		row = append(row, fmt.Sprintf("%.2f", gflops(p.rates[0])/gflops(p.openblas)))
		fmt.Printf("| %s |\n", strings.Join(row, " | "))
	}
	fmt.Println()
}

// environment is what OpenBLAS is run with. An OpenBLAS that is older than the processor
// does not know it by name and takes the loops of a Pentium 4 (0.3.21 on Emerald
// Rapids: 9 times slower), so it is told what the processor can do, unless the caller
// has.
func environment(threads int) []string {
	env := append(os.Environ(), "OPENBLAS_NUM_THREADS="+strconv.Itoa(threads))
	if os.Getenv("OPENBLAS_CORETYPE") != "" {
		return env
	}
	switch kernel.Variants()[0] {
	case "avx512":
		return append(env, "OPENBLAS_CORETYPE=SkylakeX")
	case "avx2":
		return append(env, "OPENBLAS_CORETYPE=Haswell")
	}
	return env
}

// peer is one line of the table.
type peer struct {
	program    string
	m, n, k    int
	threads    int
	operations float64
	variants   []string
	cases      []speed.Case  // products by each variant, then multiply-adds
	rates      []speed.Rates // of cases
	openblas   speed.Rates
}

func newPeer(program string, shape [3]int, threads int, variants []string) *peer {
	m, n, k := shape[0], shape[1], shape[2]
	p := &peer{program: program, m: m, n: n, k: k, threads: threads, variants: variants, operations: 2 * float64(m) * float64(n) * float64(k)}
	w := kernel.Dense{Data: speed.NewBuffer(4*int64(n*k), 1).Floats, Rows: n, Cols: k}
	x, y := speed.NewBuffer(4*int64(m*k), 2).Floats, speed.NewBuffer(4*int64(m*n), 0).Floats
	for _, v := range variants {
		p.cases = append(p.cases, speed.Case{Variant: v, Threads: threads, Work: p.operations, Run: func() error {
			return kernel.MulT(y, x, m, w, false)
		}})
	}
	for _, v := range variants {
		p.cases = append(p.cases, speed.MultiplyAdds(v, threads))
	}
	p.rates = make([]speed.Rates, len(p.cases))
	return p
}

// round times everything once; each product runs once before, as OpenBLAS' does.
func (p *peer) round(ctx context.Context) error {
	rates, err := speed.Rounds(ctx, p.cases, 1, func() {})
	if err != nil {
		return err
	}
	for i, r := range rates {
		p.rates[i] = append(p.rates[i], r...)
	}
	cmd := exec.CommandContext(ctx, p.program, strconv.Itoa(p.m), strconv.Itoa(p.n), strconv.Itoa(p.k))
	cmd.Env = environment(p.threads)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("OpenBLAS: %w", err)
	}
	seconds, err := strconv.ParseFloat(string(bytes.TrimSpace(out)), 64)
	p.openblas = append(p.openblas, p.operations/seconds)
	return err
}
