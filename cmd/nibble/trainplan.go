package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"path/filepath"
	"runtime/debug"
	"slices"
	"syscall"

	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/internal/fsx"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/kernel"
	"github.com/seed18967229/nibble/internal/memory"
	"github.com/seed18967229/nibble/internal/speed"
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/train"
	"github.com/seed18967229/nibble/train/data"
	"github.com/seed18967229/nibble/train/stream"
)

// largeStep is the multiply-adds of a step from which on it pays to measure the machine
// before the run: some seconds' worth.
const largeStep = 1e12

// plan plans the run within what --memory, --cache and --scratch-dir give, or, where
// nothing is said, three quarters of the memory that is free.
func (a *app) plan(ctx context.Context, m *model, set *data.Set, o *trainOptions) (*train.Plan, error) {
	given := o.cache != math.MaxInt64
	r := train.Resources{Memory: int64(a.memory), Cache: int64(o.cache), Fill: a.memory > 0 || given, Scratch: o.scratch, Data: set.Memory()}
	longest := set.Longest()
	if a.memory == 0 {
		r.Memory = memory.Available() / 4 * 3
	}
	if r.Scratch == "" {
		r.Scratch = o.out
	}
	r.Disk = fsx.Free(r.Scratch)
	plan, err := train.NewPlan(m.base(), &o.Config, longest, r)
	if err != nil || !o.dryRun && plan.Operations < largeStep {
		return plan, err
	}
	p, err := a.probe(ctx, m, plan.Tokens, r.Scratch)
	if err != nil {
		return nil, diskFull(fmt.Errorf("measuring the machine: %w", err))
	}
	r.Speed = p
	return train.NewPlan(m.base(), &o.Config, longest, r)
}

// diskFull says what helps where the disk is.
func diskFull(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EFBIG) || errors.Is(err, syscall.EDQUOT) {
		return hint.Add(err, "free space there, or name a directory on another disk with --scratch-dir")
	}
	return err
}

// probe measures how fast the machine does what a step is made of.
func (a *app) probe(ctx context.Context, m *model, tokens int, scratch string) (speed.Probe, error) {
	defer debug.FreeOSMemory() // the run has the memory for itself
	w, err := sampleMatrix(m)
	if err != nil {
		return speed.Probe{}, err
	}
	return speed.Probed(ctx, w, min(tokens, 512), m.Paths(), fsx.Existing(scratch))
}

// sampleMatrix returns a large weight of the first block, in memory as it is stored.
func sampleMatrix(m *model) (kernel.Matrix, error) {
	t, ok := m.arch.Find(arch.Down, "weight", 0)
	if !ok {
		if t, ok = m.arch.FindExpert(arch.Down, 0, 0); !ok {
			t, ok = m.arch.Find(arch.AttnOut, "weight", 0)
		}
	}
	if !ok {
		return nil, fmt.Errorf("%w: the first block has no linear layer that is known", tensor.ErrUnsupported)
	}
	info, err := m.view.Info(t.Name)
	if err != nil {
		return nil, err
	}
	r, err := m.view.Raw(t.Name)
	if err != nil {
		return nil, err
	}
	b := make([]byte, info.Size())
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, fmt.Errorf("tensor %q: %w", t.Name, err)
	}
	rows, err := codecs.Open(info, tensor.Memory(b))
	if err != nil {
		return nil, err
	}
	return stream.MatrixOf(rows, info.Shape), nil
}

// dryRunResult is what train --dry-run prints.
type dryRunResult struct {
	Config train.Config `json:"config"`

	// SetBy says of each flag that is not left as it is what set it.
	SetBy map[string]string `json:"set_by"`

	Plan *train.Plan `json:"plan"`

	*preview
	Exports []*export `json:"exports,omitempty"`
}

func (r *dryRunResult) text(w io.Writer) {
	c, _ := json.MarshalIndent(r.Config, "", "  ")
	fmt.Fprintf(w, "%s\n\n", c)
	for _, name := range slices.Sorted(maps.Keys(r.SetBy)) {
		fmt.Fprintf(w, "%s is from %s\n", name, r.SetBy[name])
	}
	fmt.Fprintf(w, "\nmemory, at most:\n")
	p := r.Plan
	for _, l := range p.Lines {
		fmt.Fprintf(w, "  %12s  %s\n", memory.FormatSize(l.Bytes), l.What)
	}
	fmt.Fprintf(w, "  %12s  in all\n\n", memory.FormatSize(p.Total))
	for _, n := range p.Notes {
		fmt.Fprintf(w, "%s\n", n)
	}
	if p.Disk > 0 {
		fmt.Fprintf(w, "disk: %s in %s while it runs\n", memory.FormatSize(p.Disk), filepath.Clean(p.Scratch))
	}
	fmt.Fprintf(w, "a step: %.3g floating-point operations, %s read, %s written", p.Operations, memory.FormatSize(p.Read), memory.FormatSize(p.Written))
	if p.Seconds > 0 {
		fmt.Fprintf(w, "; about %s", seconds(p.Seconds))
	}
	fmt.Fprintf(w, "\ntrainable: %s of %s parameters (%.2f %%)\n", thousands(p.Trainable), thousands(p.Params), 100*float64(p.Trainable)/float64(p.Params))
	r.preview.text(w)
	describeExports(w, r.Exports)
}

// seconds writes a time with as much as is known of it.
func seconds(s float64) string {
	switch {
	case s < 0.1:
		return fmt.Sprintf("%.0f ms", 1000*s)
	case s < 10:
		return fmt.Sprintf("%.1f s", s)
	}
	return fmt.Sprintf("%.0f s", s)
}
