package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/formats/hf"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/memory"
	"github.com/seed18967229/nibble/nf4"
	"github.com/seed18967229/nibble/nf4/bnb"
	"github.com/seed18967229/nibble/tensor"
)

// bnbTypes are the types of bitsandbytes.
var bnbTypes = map[string]tensor.DType{"nf4": tensor.NF4, "fp4": tensor.FP4}

// bnbOptions are the flags of bitsandbytes' types.
type bnbOptions struct {
	blockSize     int
	noDoubleQuant bool
	skip          []string
	maxShard      sizeFlag
}

func bnbFlags(cmd *cobra.Command, o *bnbOptions) {
	f := cmd.Flags()
	f.IntVar(&o.blockSize, "block-size", nf4.DefaultBlock, "weights that share an absmax: a power of two from 32 to 4096")
	f.BoolVar(&o.noDoubleQuant, "no-double-quant", false, "store each absmax in 32 bits")
	f.StringSliceVar(&o.skip, "skip-modules", nil, "modules that keep their type (default lm_head)")
	f.Var(&o.maxShard, "max-shard-size", "largest shard (default 5GB)")
}

type quantizeResult struct {
	writeResult
	Type        string   `json:"type"`
	BlockSize   int      `json:"block_size"`
	DoubleQuant bool     `json:"double_quant"`
	Before      int64    `json:"bytes_before"`
	Bits        float64  `json:"bits_per_quantized_weight"`
	RelRMS      float64  `json:"mean_relative_rms_error"`
	Skipped     []string `json:"skipped,omitempty"`

	Adapter *adapterResult `json:"adapter,omitempty"`
}

func (r *quantizeResult) text(w io.Writer) {
	dq := ""
	if r.DoubleQuant {
		dq = " with double quantization"
	}
	fmt.Fprintf(w, "%s: %d of %d tensors to %s, block size %d%s\n", r.Out, r.Actions[strings.ToLower(r.Type)], total(r.Actions), r.Type, r.BlockSize, dq)
	fmt.Fprintf(w, "  size          %s -> %s; %.3f bits per quantized weight\n", memory.FormatSize(r.Before), memory.FormatSize(r.Bytes), r.Bits)
	fmt.Fprintf(w, "  error         %.4f relative RMS, mean over the quantized tensors\n", r.RelRMS)
	for _, s := range r.Skipped {
		fmt.Fprintf(w, "  kept          %s\n", s)
	}
	if r.Adapter != nil {
		r.Adapter.text(w)
	}
	fmt.Fprintf(w, "  peak memory   %s\n", memory.FormatSize(r.PeakRSS))
}

func total(counts map[string]int) (n int) {
	for _, c := range counts {
		n += c
	}
	return n
}

func (a *app) quantizeBnb(ctx context.Context, in, out string, typ tensor.DType, all *quantizeOptions) error {
	o := &all.bnb
	if err := nf4.CheckBlockSize(int64(o.blockSize)); err != nil {
		return badUsage(err)
	}
	if isGGUF(out) {
		return badUsage(hint.Add(fmt.Errorf("%s: %s is stored as safetensors, in a directory", out, typ), "give a directory as OUT"))
	}
	m, err := openModel(in)
	if err != nil {
		return err
	}
	defer m.Close()
	bad := all.nonFinite()
	opts := bnb.Options{Type: typ, BlockSize: o.blockSize, DoubleQuant: !o.noDoubleQuant, SkipModules: o.skip, NonFinite: bad}
	for _, t := range m.arch.Tensors() {
		if t.Linear || t.Role == arch.Head {
			opts.Linear = append(opts.Linear, t.Name)
		}
		if t.Role == arch.Head {
			opts.Head = t.Module()
		}
	}
	adapter, err := newInitialAdapter(&all.init, m, out, typ)
	if err != nil {
		return err
	}
	opts.LoftQ = adapter.loftq
	plan, account, err := bnb.Plan(m.view, codecs, opts)
	if err != nil {
		return fmt.Errorf("%s: %w", in, err)
	}
	if err := adapter.create(m, out, a.force); err != nil {
		return err
	}
	defer adapter.abort()
	set := []hf.Field{{Name: "quantization_config", Value: account.QuantizationConfig()}}
	w, err := a.writeDir(ctx, m, m.view, plan, out, dirOptions{dtype: m.dtype(), set: set, maxShard: int64(o.maxShard), sink: adapter.beside})
	if err != nil {
		return err
	}
	w.Notes = append(w.Notes, bad.Notes()...)
	r := summarize(w, account, o, typ)
	r.Adapter = adapter.result()
	return a.print(r)
}

func summarize(w *writeResult, account *bnb.Account, o *bnbOptions, typ tensor.DType) *quantizeResult {
	r := &quantizeResult{writeResult: *w, Type: typ.String(), BlockSize: o.blockSize, DoubleQuant: !o.noDoubleQuant}
	var bits, weights float64
	n := 0
	r.Bytes = 0
	for _, x := range account.Results() {
		r.Before += x.Before
		r.Bytes += x.After
		switch {
		case x.Action != "copy":
			bits += 8 * float64(x.After)
			weights += float64(x.Shape.Elems())
			r.RelRMS += x.RelRMS
			n++
		case x.Reason != "":
			r.Skipped = append(r.Skipped, x.Name+": "+x.Reason)
		}
	}
	if n > 0 {
		r.Bits, r.RelRMS = bits/weights, r.RelRMS/float64(n)
	}
	slices.Sort(r.Skipped)
	return r
}
