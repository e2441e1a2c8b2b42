package main

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/kernel"
	"github.com/seed18967229/nibble/internal/memory"
	"github.com/seed18967229/nibble/internal/speed"
)

func (a *app) benchCommand() *cobra.Command {
	o := benchOptions{disk: 512 << 20}
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure this machine and how much of it nibble's loops use",
		Long: `Measure this machine and how much of it nibble's loops use: multiply-adds that wait
for nothing, memory, the disk of --dir; then products of matrices with each set of
loops, over float32 and over NF4 weights, NF4 encoding and decoding, conversions and
attention. All of it on one processor and on all.

Everything runs once in each round, so that what else the machine does falls on all
alike; the median over the rounds and the best are printed. Where there are faster
loops, plain Go multiplies one shape in the first round only. Rates of memory count
the bytes that are read and those that are written. --memory bounds the two buffers,
which want 1GiB.

The environment variable NIBBLE_KERNEL (go, avx2 or avx512) names the loops that
everything but the products and the multiply-adds is measured with.`,
		Example: "  nibble bench\n  nibble bench --only fma,gemm --runs 9\n  nibble bench --only disk --dir /mnt/models --disk-size 4GiB",
		Args:    exactArgs(0),
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.bench(cmd.Context(), &o) },
	}
	f := cmd.Flags()
	f.IntVar(&o.runs, "runs", 5, "rounds; the disk is measured in at most 3 of them")
	f.StringVar(&o.dir, "dir", ".", "where the file is written that the disk is measured with")
	f.Var(&o.disk, "disk-size", "size of that file")
	f.StringSliceVar(&o.only, "only", nil, "what to measure, of "+strings.Join(benchSections, ", ")+" (default all)")
	return cmd
}

type benchOptions struct {
	runs int
	dir  string
	disk sizeFlag
	only []string
}

// benchSections are the names of what there is to measure, in order.
var benchSections = []string{"fma", "memory", "disk", "gemm", "nf4", "convert", "attention"}

// benchTitles says what the rates of a section are.
var benchTitles = map[string]string{
	"fma":       "multiply-adds that wait for nothing, by loops and processors",
	"memory":    "memory",
	"disk":      "disk",
	"gemm":      "y = x Wᵀ of float32, M x N x K; share of the multiply-adds",
	"nf4":       "NF4, block 64, double quantization; ratio: time over NF4 to time over float32",
	"convert":   "conversions in memory; share of the faster copy",
	"attention": "attention, causal, forward and backward; share of the multiply-adds",
}

type benchResult struct {
	CPU      string   `json:"cpu"`
	Platform string   `json:"platform"`
	CPUs     int      `json:"cpus"`
	Threads  int      `json:"threads"`
	Features []string `json:"features,omitempty"`
	Variant  string   `json:"variant"`
	Variants []string `json:"variants"`
	Buffer   int64    `json:"buffer_bytes"` // each of the two
	Rounds   int      `json:"rounds"`

	Rates []benchRate `json:"rates"`

	// LeftOut is what was asked for and not measured, with the reason.
	LeftOut []string `json:"left_out,omitempty"`

	Seconds float64 `json:"seconds"`
	PeakRSS int64   `json:"peak_rss"`
}

// benchRate is how fast something went.
type benchRate struct {
	Section string `json:"section"`
	Name    string `json:"name"`
	Variant string `json:"variant,omitempty"`
	Threads int    `json:"threads,omitempty"`

	Unit   string  `json:"unit"`
	Median float64 `json:"median"`
	Best   float64 `json:"best"`
	Rounds int     `json:"rounds"`

	// Share is the median, over the rounds, of the share of what ShareOf names.
	Share   float64 `json:"share,omitempty"`
	ShareOf string  `json:"share_of,omitempty"`
}

func (a *app) bench(ctx context.Context, o *benchOptions) error {
	if o.runs < 1 || o.disk < 1 {
		return badUsage(fmt.Errorf("--runs %d, --disk-size %v: want at least 1", o.runs, &o.disk))
	}
	for _, s := range o.only {
		if !slices.Contains(benchSections, s) {
			return badUsage(hint.Add(fmt.Errorf("--only %q: there is no such thing to measure", s), "there is %s", strings.Join(benchSections, ", ")))
		}
	}
	start := time.Now()
	variant, _ := kernel.Variant()
	r := &benchResult{
		CPU: speed.CPU(), Platform: runtime.GOOS + "/" + runtime.GOARCH, CPUs: runtime.NumCPU(), Threads: runtime.GOMAXPROCS(0),
		Features: kernel.Features(), Variant: variant, Variants: kernel.Variants(), Rounds: o.runs,
	}
	b := newBenchmarks(r.Threads, r.Variants, int64(a.memory))
	r.Buffer = int64(len(b.from.Bytes))
	wanted := func(section string) bool { return len(o.only) == 0 || slices.Contains(o.only, section) }
	for _, s := range benchSections {
		if wanted(s) {
			if err := b.add(s); err != nil {
				return err
			}
		}
	}
	r.LeftOut = b.leftOut

	bar := a.progress("bench", int64(speed.Timings(b.cases(), o.runs)), itemsUnit)
	rates, err := speed.Rounds(ctx, b.cases(), o.runs, func() { bar.add(1) })
	bar.stop()
	if err != nil {
		return err
	}
	r.Rates = b.rates(rates)
	if wanted("disk") {
		disk, err := a.benchDisk(ctx, o)
		if err != nil {
			return err
		}
		r.Rates = append(r.Rates, disk...)
		// To where the section has its place.
		slices.SortStableFunc(r.Rates, func(x, y benchRate) int {
			return slices.Index(benchSections, x.Section) - slices.Index(benchSections, y.Section)
		})
	}
	r.Seconds, r.PeakRSS = time.Since(start).Seconds(), memory.PeakRSS()
	return a.print(r)
}

func (a *app) benchDisk(ctx context.Context, o *benchOptions) ([]benchRate, error) {
	rounds := min(o.runs, 3)
	bar := a.progress("disk", 2*int64(rounds)*int64(o.disk), bytesUnit)
	defer bar.stop()
	d, err := speed.MeasureDisk(ctx, o.dir, int64(o.disk), rounds, bar.add)
	if err != nil {
		return nil, err
	}
	how := "read through the page cache"
	if d.Direct {
		how = "read past the page cache"
	}
	return []benchRate{
		rateOf(benchRate{Section: "disk", Name: "write and fsync", Unit: "GB/s"}, d.Write),
		rateOf(benchRate{Section: "disk", Name: how, Unit: "GB/s"}, d.Read),
	}, nil
}

// rateOf fills in what was measured, in 10^9 a second.
func rateOf(r benchRate, rates speed.Rates) benchRate {
	r.Median, r.Best, r.Rounds = rates.Median()/1e9, rates.Best()/1e9, len(rates)
	return r
}

func (r *benchResult) text(w io.Writer) {
	fmt.Fprintf(w, "%s, %s, %d of %d processors\n", r.CPU, r.Platform, r.Threads, r.CPUs)
	if len(r.Features) > 0 {
		fmt.Fprintf(w, "  features      %s\n", strings.Join(r.Features, " "))
	}
	fmt.Fprintf(w, "  loops         %s (there is %s)\n", r.Variant, strings.Join(r.Variants, ", "))
	fmt.Fprintf(w, "  buffers       2 of %s\n", memory.FormatSize(r.Buffer))
	fmt.Fprintf(w, "  rounds        %d, in %.0f s; peak memory %s\n", r.Rounds, r.Seconds, memory.FormatSize(r.PeakRSS))

	threads := []int{1}
	if r.Threads > 1 {
		threads = append(threads, r.Threads)
	}
	// Rates of the same thing on other numbers of processors go into one line.
	type key struct{ section, name, variant string }
	var lines []key
	cells := make(map[key]map[int]benchRate)
	share := make(map[string]string) // the head of the column, where there is one
	for _, x := range r.Rates {
		k := key{x.Section, x.Name, x.Variant}
		if cells[k] == nil {
			lines = append(lines, k)
			cells[k] = make(map[int]benchRate)
		}
		cells[k][max(x.Threads, 1)] = x
		if x.Share > 0 {
			share[x.Section] = "share"
		}
	}
	section := ""
	for _, k := range lines {
		if k.section != section {
			section = k.section
			fmt.Fprintf(w, "\n%s\n", benchTitles[section])
			head := fmt.Sprintf("  %-45s", "")
			for i, n := range threads {
				switch {
				case section != "disk":
					head += fmt.Sprintf(" %10s %6s %-5s", fmt.Sprintf("median, %d", n), "best", share[section])
				case i == 0:
					head += fmt.Sprintf(" %10s %6s", "median", "best")
				}
			}
			fmt.Fprintln(w, strings.TrimRight(head, " "))
		}
		line := fmt.Sprintf("  %-45s", fmt.Sprintf("%-27s %-6s %s", k.name, k.variant, cells[k][1].Unit))
		for _, n := range threads {
			if x, ok := cells[k][n]; ok {
				line += fmt.Sprintf(" %10s %6s %-5s", threeDigits(x.Median), threeDigits(x.Best), percent(x.Share))
			}
		}
		fmt.Fprintln(w, strings.TrimRight(line, " "))
	}
	for _, s := range r.LeftOut {
		fmt.Fprintf(w, "left out: %s\n", s)
	}
}

// threeDigits writes a number with about three digits.
func threeDigits(x float64) string {
	switch {
	case x >= 100:
		return fmt.Sprintf("%.0f", x)
	case x >= 10:
		return fmt.Sprintf("%.1f", x)
	}
	return fmt.Sprintf("%.2f", x)
}

// percent writes a share, nothing if there is none.
func percent(x float64) string {
	if x == 0 {
		return ""
	}
	return fmt.Sprintf("%.0f %%", 100*x)
}
