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
	"github.com/seed18967229/nibble/internal/fsx"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/memory"
	"github.com/seed18967229/nibble/nf4"
	"github.com/seed18967229/nibble/nf4/bnb"
	"github.com/seed18967229/nibble/tensor"
)

// quantizeOptions are the flags of quantize.
type quantizeOptions struct {
	typ           string
	blockSize     int
	noDoubleQuant bool
	skip          []string
	maxShard      sizeFlag
}

// quantTypes are what --type may be.
var quantTypes = map[string]tensor.DType{"nf4": tensor.NF4, "fp4": tensor.FP4}

func (a *app) quantizeCommand() *cobra.Command {
	var o quantizeOptions
	cmd := &cobra.Command{
		Use:   "quantize IN OUT",
		Short: "Quantize a model to 4 bits as bitsandbytes does, ready for QLoRA",
		Long: `Quantize the linear layers of a model to NF4 or FP4. The directory written is
what transformers and bitsandbytes write and load: same tensors, same bits, and
a quantization_config in config.json. Embeddings, norms and the output head keep
their type; --skip-modules replaces that choice of lm_head, as
llm_int8_skip_modules does.`,
		Example: "  nibble quantize stories260K stories260K-nf4 --type nf4",
		Args:    exactArgs(2),
		RunE:    func(cmd *cobra.Command, args []string) error { return a.quantize(cmd.Context(), args[0], args[1], &o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.typ, "type", "nf4", "nf4, fp4")
	f.IntVar(&o.blockSize, "block-size", nf4.DefaultBlock, "weights that share an absmax: a power of two from 32 to 4096")
	f.BoolVar(&o.noDoubleQuant, "no-double-quant", false, "store each absmax in 32 bits")
	f.StringSliceVar(&o.skip, "skip-modules", nil, "modules that keep their type (default lm_head)")
	f.Var(&o.maxShard, "max-shard-size", "largest shard (default 5GB)")
	return cmd
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
	fmt.Fprintf(w, "  peak memory   %s\n", memory.FormatSize(r.PeakRSS))
}

func total(counts map[string]int) (n int) {
	for _, c := range counts {
		n += c
	}
	return n
}

func (a *app) quantize(ctx context.Context, in, out string, o *quantizeOptions) error {
	typ, ok := quantTypes[strings.ToLower(o.typ)]
	if !ok {
		return badUsage(hint.Add(fmt.Errorf("no quantization type %q", o.typ), "there are: nf4, fp4"))
	}
	if err := nf4.CheckBlockSize(int64(o.blockSize)); err != nil {
		return badUsage(err)
	}
	if isGGUF(out) {
		return badUsage(hint.Add(fmt.Errorf("%s: %s is stored as safetensors, in a directory", out, typ), "give a directory as OUT"))
	}
	if err := fsx.CheckOutput(out, in); err != nil {
		return badUsage(err)
	}
	m, err := openModel(in)
	if err != nil {
		return err
	}
	defer m.Close()
	opts := bnb.Options{Type: typ, BlockSize: o.blockSize, DoubleQuant: !o.noDoubleQuant, SkipModules: o.skip}
	for _, t := range m.arch.Tensors() {
		if t.Linear || t.Role == arch.Head {
			opts.Linear = append(opts.Linear, t.Name)
		}
		if t.Role == arch.Head {
			opts.Head = t.Module()
		}
	}
	plan, account, err := bnb.Plan(m.view, codecs, opts)
	if err != nil {
		return fmt.Errorf("%s: %w", in, err)
	}
	set := []hf.Field{{Name: "quantization_config", Value: account.QuantizationConfig()}}
	w, err := a.writeDir(ctx, m, m.view, plan, out, dirOptions{dtype: m.dtype(), set: set, maxShard: int64(o.maxShard)})
	if err != nil {
		return err
	}
	return a.print(summarize(w, account, o, typ))
}

func summarize(w *writeResult, account *bnb.Account, o *quantizeOptions, typ tensor.DType) *quantizeResult {
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
