package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/seed18967229/nibble/formats/hf"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/memory"
	"github.com/seed18967229/nibble/nf4"
	"github.com/seed18967229/nibble/nf4/bnb"
	"github.com/seed18967229/nibble/tensor"
)

// bnbTypes are the types of bitsandbytes.
var bnbTypes = map[string]tensor.DType{"nf4": tensor.NF4, "fp4": tensor.FP4, "int8": tensor.INT8}

// bnbOptions are the flags of bitsandbytes' types. The zero value of each is its
// default, so that one that was given shows.
type bnbOptions struct {
	blockSize        int
	noDoubleQuant    bool
	storage, compute string
	skip             []string
	experts          string
	maxShard         sizeFlag
}

func bnbFlags(cmd *cobra.Command, o *bnbOptions) {
	bnbTypeFlags(cmd, o)
	cmd.Flags().Var(&o.maxShard, "max-shard-size", "largest shard (default 5GB)")
}

// bnbTypeFlags adds the flags that say how weights are quantized.
func bnbTypeFlags(cmd *cobra.Command, o *bnbOptions) {
	f := cmd.Flags()
	f.IntVar(&o.blockSize, "block-size", 0, fmt.Sprintf("nf4, fp4: weights that share an absmax: a power of two from 32 to 4096 (default %d)", nf4.DefaultBlock))
	f.BoolVar(&o.noDoubleQuant, "no-double-quant", false, "nf4, fp4: store each absmax in 32 bits")
	f.StringVar(&o.storage, "quant-storage", "", "nf4, fp4: what the codes are stored as: uint8, bf16, f16, f32 (default uint8)")
	f.StringVar(&o.compute, "compute-dtype", "", "nf4, fp4: what bitsandbytes decodes weights to when it computes: f32, f16, bf16 (default: the type of the weights)")
	f.StringSliceVar(&o.skip, "skip-modules", nil, "modules that keep their type, by the end of their name, their path or a regular expression (default lm_head)")
	f.StringVar(&o.experts, "experts", "", "experts of a mixture: keep, or quantize, which transformers 5 does not load (default keep)")
}

// storages are the values of --quant-storage.
var storages = map[string]tensor.DType{
	"uint8": tensor.U8, "bf16": tensor.BF16, "bfloat16": tensor.BF16, "f16": tensor.F16, "float16": tensor.F16, "f32": tensor.F32, "float32": tensor.F32,
}

// parse returns the options as bnb has them.
func (o *bnbOptions) parse(typ tensor.DType) (bnb.Options, error) {
	opts := bnb.Options{Type: typ, SkipModules: o.skip}
	if o.experts != "" && o.experts != "keep" && o.experts != "quantize" {
		return opts, badUsage(hint.Add(fmt.Errorf("no %q of --experts", o.experts), "there are: keep, quantize"))
	}
	opts.PerExpert = o.experts == "quantize"
	if typ == tensor.INT8 {
		for flag, given := range map[string]bool{
			"block-size": o.blockSize != 0, "no-double-quant": o.noDoubleQuant, "quant-storage": o.storage != "", "compute-dtype": o.compute != "",
		} {
			if given {
				return opts, badUsage(hint.Add(fmt.Errorf("--%s is of nf4 and fp4; int8 has a scale for each row", flag), "leave it out"))
			}
		}
		return opts, nil
	}
	opts.BlockSize, opts.DoubleQuant = cmp.Or(o.blockSize, nf4.DefaultBlock), !o.noDoubleQuant
	if err := nf4.CheckBlockSize(int64(opts.BlockSize)); err != nil {
		return opts, badUsage(err)
	}
	var ok bool
	if opts.Storage, ok = storages[cmp.Or(o.storage, "uint8")]; !ok {
		return opts, badUsage(hint.Add(fmt.Errorf("no %q of --quant-storage", o.storage), "there are: uint8, bf16, f16, f32"))
	}
	if o.compute != "" {
		if opts.Compute, ok = storages[o.compute]; !ok || opts.Compute == tensor.U8 {
			return opts, badUsage(hint.Add(fmt.Errorf("no %q of --compute-dtype", o.compute), "there are: f32, f16, bf16"))
		}
	}
	return opts, nil
}

type quantizeResult struct {
	writeResult
	Type        string      `json:"type"`
	BlockSize   int         `json:"block_size,omitempty"`
	DoubleQuant bool        `json:"double_quant"`
	Before      int64       `json:"bytes_before"`
	Bits        float64     `json:"bits_per_quantized_weight"`
	RelRMS      float64     `json:"mean_relative_rms_error"`
	Kept        []keptGroup `json:"kept"`

	Adapter *adapterResult `json:"adapter,omitempty"`

	chosen bool // block sizes differ
}

// keptGroup is tensors that were not quantized, for one reason.
type keptGroup struct {
	Reason  string   `json:"reason"`
	Names   []string `json:"names"` // with a * for numbers
	Tensors int      `json:"tensors"`
	Bytes   int64    `json:"bytes"` // in the output
}

func (r *quantizeResult) text(w io.Writer) {
	how := "a scale for each row"
	switch {
	case r.chosen:
		how = "each with the block size chosen for it,"
	case r.BlockSize > 0:
		how = fmt.Sprintf("block size %d", r.BlockSize)
	}
	if r.DoubleQuant {
		how += " with double quantization"
	}
	fmt.Fprintf(w, "%s: %d of %d tensors to %s, %s\n", r.Out, r.Actions[strings.ToLower(r.Type)], total(r.Actions), r.Type, how)
	fmt.Fprintf(w, "  size          %s -> %s; %.3f bits per quantized weight\n", memory.FormatSize(r.Before), memory.FormatSize(r.Bytes), r.Bits)
	fmt.Fprintf(w, "  error         %.4f relative RMS, mean over the quantized tensors\n", r.RelRMS)
	for _, k := range r.Kept {
		fmt.Fprintf(w, "  kept          %s: %s, %s (%s)\n", k.Reason, plural(k.Tensors, "tensor"), memory.FormatSize(k.Bytes), listed(k.Names))
	}
	for _, n := range r.Notes {
		fmt.Fprintf(w, "  %s\n", n)
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
	opts, err := all.bnb.parse(typ)
	if err != nil {
		return err
	}
	if isGGUF(out) {
		return badUsage(hint.Add(fmt.Errorf("%s: %s is stored as safetensors, in a directory", out, typ), "give a directory as OUT"))
	}
	m, err := openModel(in)
	if err != nil {
		return err
	}
	defer m.Close()
	b, err := newBnbInput(m, m.view, &opts)
	if err != nil {
		return err
	}
	opts.NonFinite = all.nonFinite()
	if all.target.given() {
		if err := a.chooseBlocks(ctx, b, m, &opts, all); err != nil {
			return err
		}
	}
	adapter, err := newInitialAdapter(&all.init, m, out, opts.Type)
	if err != nil {
		return err
	}
	opts.LoftQ = adapter.loftq
	plan, account, err := bnb.Plan(b.src, codecs, opts)
	if err != nil {
		return fmt.Errorf("%s: %w", in, err)
	}
	for _, x := range account.Results() {
		if x.Reason != "" {
			all.loss.keep(x.Name, x.Reason)
		}
	}
	if err := adapter.create(m, out, a.force); err != nil {
		return err
	}
	defer adapter.abort()
	set := []hf.Field{{Name: "quantization_config", Value: account.QuantizationConfig()}}
	w, err := a.writeDir(ctx, b.model, b.src, plan, out, dirOptions{dtype: b.dtype, set: set, drop: m.quantization(), maxShard: int64(all.bnb.maxShard), sink: adapter.beside})
	if err != nil {
		return err
	}
	r := summarize(w, account, opts)
	r.Adapter = adapter.result()
	r.Notes = slices.Concat(r.Notes, b.notes, opts.NonFinite.Notes())
	if k := slices.IndexFunc(r.Kept, func(k keptGroup) bool { return k.Reason == expertReason }); k >= 0 {
		r.Notes = append(r.Notes, fmt.Sprintf("%.0f%% of the output are experts that were not quantized: transformers 5 has no 4-bit or 8-bit ones; "+
			"with --experts quantize nibble and transformers 4 read the result", 100*float64(r.Kept[k].Bytes)/float64(r.Bytes)))
	}
	return a.print(r)
}

func summarize(w *writeResult, account *bnb.Account, o bnb.Options) *quantizeResult {
	r := &quantizeResult{writeResult: *w, Type: o.Type.String(), BlockSize: o.BlockSize, DoubleQuant: o.DoubleQuant, Kept: []keptGroup{}}
	var bits, weights float64
	n := 0
	r.Bytes = 0
	groups := make(map[string]*keptGroup)
	for _, x := range account.Results() {
		r.Before += x.Before
		r.Bytes += x.After
		if x.Quantized() {
			bits += 8 * float64(x.After)
			weights += float64(x.Shape.Elems())
			r.RelRMS += x.RelRMS
			n++
			continue
		}
		reason := cmp.Or(x.Reason, "not a linear layer")
		g := groups[reason]
		if g == nil {
			g = &keptGroup{Reason: reason}
			groups[reason] = g
		}
		g.Tensors++
		g.Bytes += x.After
		if name := starred(x.Name); !slices.Contains(g.Names, name) {
			g.Names = append(g.Names, name)
		}
	}
	if o.BlockSizes != nil {
		r.BlockSize, r.chosen = 0, true
	}
	if n > 0 {
		r.Bits, r.RelRMS = bits/weights, r.RelRMS/float64(n)
	}
	for _, reason := range slices.Sorted(maps.Keys(groups)) {
		r.Kept = append(r.Kept, *groups[reason])
	}
	slices.SortStableFunc(r.Kept, func(a, b keptGroup) int { return cmp.Compare(b.Bytes, a.Bytes) })
	return r
}

// starred returns a tensor's name with a * for each number in it.
func starred(name string) string {
	parts := strings.Split(name, ".")
	for i, p := range parts {
		if p != "" && strings.Trim(p, "0123456789") == "" {
			parts[i] = "*"
		}
	}
	return strings.Join(parts, ".")
}
