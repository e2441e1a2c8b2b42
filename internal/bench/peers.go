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

// peers times products of matrices by nibble and by OpenBLAS in turn, and prints a
// table of the medians, with the machine's multiply-adds from the same rounds.
func peers(ctx context.Context, rounds int) error {
	dir, err := os.MkdirTemp("", "nibble-peers")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	program := filepath.Join(dir, "gemm")
	cc := exec.CommandContext(ctx, "cc", "-O2", "-o", program, "internal/bench/peers/gemm.c", "-lopenblas")
	if out, err := cc.CombinedOutput(); err != nil {
		return hint.Add(fmt.Errorf("cc: %w\n%s", err, out), "this needs a C compiler and OpenBLAS; Debian: apt-get install gcc libopenblas-dev")
	}
	version, err := exec.CommandContext(ctx, program, "version").Output()
	if err != nil {
		return err
	}
	var variants []string // not plain Go, which takes as long as all the rest
	for _, v := range kernel.Variants() {
		if v != "go" {
			variants = append(variants, v)
		}
	}
	fmt.Printf("%s, %d rounds; %s\n\n", speed.CPU(), rounds, strings.Join(strings.Fields(string(version)), " "))
	head := []string{"M x N x K", "threads"}
	for _, v := range variants {
		head = append(head, "nibble "+v)
	}
	head = append(head, "OpenBLAS")
	for _, v := range variants {
		head = append(head, "multiply-adds "+v)
	}
	head = append(head, "nibble over OpenBLAS")
	fmt.Printf("| %s |\n|%s\n", strings.Join(head, " | "), strings.Repeat("---|", len(head)))

	threads := slices.Compact([]int{1, runtime.GOMAXPROCS(0)})
	for _, s := range products {
		for _, n := range threads {
			p := &peer{program: program, m: s[0], n: s[1], k: s[2], threads: n, variants: variants}
			p.prepare()
			for range rounds {
				if err := p.round(ctx); err != nil {
					return err
				}
			}
			p.print()
		}
	}
	return nil
}

// peer is one line of the table.
type peer struct {
	program       string
	m, n, k       int
	threads       int
	variants      []string
	cases         []speed.Case  // products by each variant, then multiply-adds
	rates         []speed.Rates // of cases
	openblas      speed.Rates
	operations    float64
	weight, input speed.Buffer
	output        speed.Buffer
}

func (p *peer) prepare() {
	p.operations = 2 * float64(p.m) * float64(p.n) * float64(p.k)
	p.weight, p.input = speed.NewBuffer(4*int64(p.n*p.k), 1), speed.NewBuffer(4*int64(p.m*p.k), 2)
	p.output = speed.NewBuffer(4*int64(p.m*p.n), 0)
	w := kernel.Dense{Data: p.weight.Floats, Rows: p.n, Cols: p.k}
	for _, v := range p.variants {
		p.cases = append(p.cases, speed.Case{Variant: v, Threads: p.threads, Work: p.operations, Run: func() error {
			return kernel.MulT(p.output.Floats, p.input.Floats, p.m, w, false)
		}})
	}
	for _, v := range p.variants {
		p.cases = append(p.cases, speed.MultiplyAdds(v, p.threads))
	}
	p.rates = make([]speed.Rates, len(p.cases))
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
	cmd.Env = append(os.Environ(), "OPENBLAS_NUM_THREADS="+strconv.Itoa(p.threads))
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return err
	}
	seconds, err := strconv.ParseFloat(string(bytes.TrimSpace(out)), 64)
	p.openblas = append(p.openblas, p.operations/seconds)
	return err
}

// print writes the medians in GFLOP/s, the share of the variant's own multiply-adds
// beside each, OpenBLAS' of the fastest.
func (p *peer) print() {
	n := len(p.variants)
	cell := func(r, of speed.Rates) string {
		return fmt.Sprintf("%.0f (%.0f %%)", r.Median()/1e9, 100*r.Over(of).Median())
	}
	row := []string{fmt.Sprintf("%d x %d x %d", p.m, p.n, p.k), strconv.Itoa(p.threads)}
	for i := range p.variants {
		row = append(row, cell(p.rates[i], p.rates[n+i]))
	}
	row = append(row, cell(p.openblas, p.rates[n]))
	for i := range p.variants {
		row = append(row, fmt.Sprintf("%.0f", p.rates[n+i].Median()/1e9))
	}
	row = append(row, fmt.Sprintf("%.2f", p.rates[0].Over(p.openblas).Median()))
	fmt.Printf("| %s |\n", strings.Join(row, " | "))
}
