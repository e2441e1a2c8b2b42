package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/seed18967229/nibble/formats/gguf/ftype"
	"github.com/seed18967229/nibble/internal/fsx"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/pipeline"
)

// quantizeOptions are the flags of quantize. Those of one family of types are
// together, and given with a type of another they are an error.
type quantizeOptions struct {
	typ       string
	nanAsZero bool
	bnb       bnbOptions
	init      initOptions
	gguf      ggufOptions
	loss      lossOptions
	compare   []string
	target    targetOptions
}

// nonFinite returns what is done with weights that are NaN or infinite.
func (o *quantizeOptions) nonFinite() *pipeline.NonFinite {
	return &pipeline.NonFinite{AsZero: o.nanAsZero}
}

// quantizer quantizes a model to one type.
type quantizer struct {
	quantFamily
	run quantizeFunc
}

type quantizeFunc func(a *app, ctx context.Context, in, out string, o *quantizeOptions) error

// quantTypes are what --type may be.
func quantTypes() map[string]quantizer {
	types := make(map[string]quantizer)
	for name, d := range bnbTypes {
		types[name] = quantizer{bnbFamily, func(a *app, ctx context.Context, in, out string, o *quantizeOptions) error {
			return a.quantizeBnb(ctx, in, out, d, o)
		}}
	}
	for name, typ := range ftype.Types() {
		types[name] = quantizer{ggufFamily, func(a *app, ctx context.Context, in, out string, o *quantizeOptions) error {
			return a.quantizeGGUF(ctx, in, out, typ, o)
		}}
	}
	return types
}

// A quantFamily is a family of types, as an error speaks of it.
type quantFamily string

const (
	bnbFamily  quantFamily = "bitsandbytes"
	ggufFamily quantFamily = "GGUF"
)

// familyFlags has the flags of each family.
type familyFlags map[quantFamily][]string

// add notes which flags add adds to a command as those of a family.
func (f familyFlags) add(of quantFamily, cmd *cobra.Command, add func()) {
	before := make(map[string]bool)
	cmd.Flags().VisitAll(func(x *pflag.Flag) { before[x.Name] = true })
	add()
	cmd.Flags().VisitAll(func(x *pflag.Flag) {
		if !before[x.Name] {
			f[of] = append(f[of], x.Name)
		}
	})
}

// check refuses flags that say nothing about types of a family, so that none is
// given in vain.
func (f familyFlags) check(cmd *cobra.Command, of quantFamily, typ string) error {
	for other, names := range f {
		for _, name := range names {
			if other != of && cmd.Flags().Changed(name) {
				return badUsage(hint.Add(fmt.Errorf("--%s is of the types of %s, and %s is one of %s", name, other, typ, of), "leave the flag out"))
			}
		}
	}
	return nil
}

func (a *app) quantizeCommand() *cobra.Command {
	var o quantizeOptions
	flags := make(familyFlags)
	cmd := &cobra.Command{
		Use:   "quantize IN OUT",
		Short: "Quantize a model as bitsandbytes does, ready for QLoRA, or to a GGUF file",
		Long: `Quantize the linear layers of a model to NF4, FP4 or INT8. The directory written
is what transformers and bitsandbytes write and load: same tensors, same bits, and
a quantization_config in config.json. Embeddings, norms, routers and the output
head keep their type, and so do parts that are not text; --skip-modules replaces
that choice of lm_head, as llm_int8_skip_modules does. transformers 5 has no
quantized experts: they keep their type unless --experts says otherwise.

The other types are those of GGUF files, q4_k_m and so on. From a directory or
from another GGUF file, in one pass, the file is that of llama.cpp: what its
converter and llama-quantize write one after the other, to the byte. A type such
as q4_k_m is a mix, which --dry-run shows; --tensor-type and its like change it.
--imatrix spends the precision on what matters (nibble imatrix).

--report reads back what was written and says what it lost, tensor by tensor.
--compare tries several types on the same tensors and writes none of them.
--target-bits and --target-size choose a type for each tensor, so that all of them
together lose as little as may be within the budget: NF4 with different block
sizes for a directory, which transformers loads as any other, and GGUF's types for
a file.`,
		Example: `  nibble quantize stories260K stories260K-nf4 --type nf4 --report report.html
  nibble quantize stories260K stories260K.gguf --type q4_k_m
  nibble quantize stories260K --compare nf4,nf4:128,q4_k_m
  nibble quantize stories260K stories260K.gguf --target-bits 7.5`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(o.compare) > 0 {
				return exactArgs(1)(cmd, args)
			}
			return exactArgs(2)(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			switch q, ok := quantTypes()[strings.ToLower(o.typ)]; {
			case len(o.compare) > 0:
				return a.compareTypes(cmd.Context(), args[0], &o)
			case o.target.given():
				if err := flags.target(cmd, args[1]); err != nil {
					return err
				}
				return a.quantizeTarget(cmd.Context(), args[0], args[1], &o)
			case len(o.target.types) > 0:
				return badUsage(hint.Add(fmt.Errorf("--types is what --target-bits and --target-size choose among"), "give one of them, or one type with --type"))
			case ok:
				if err := flags.check(cmd, q.quantFamily, o.typ); err != nil {
					return err
				}
			}
			return a.quantize(cmd.Context(), args[0], args[1], &o)
		},
	}
	cmd.Flags().StringVar(&o.typ, "type", "nf4", strings.Join(slices.Sorted(maps.Keys(quantTypes())), ", "))
	cmd.Flags().BoolVar(&o.nanAsZero, "nan-as-zero", false, "weights that are NaN or infinite become 0; without it they stop the run")
	flags.add(bnbFamily, cmd, func() {
		bnbFlags(cmd, &o.bnb)
		initFlags(cmd, &o.init)
	})
	flags.add(ggufFamily, cmd, func() { ggufQuantFlags(cmd, &o.gguf) })
	lossFlags(cmd, &o.loss)
	cmd.Flags().StringSliceVar(&o.compare, "compare", nil, "write no model, but try these types on IN: nf4, nf4:128, int8, q4_k_m ...")
	targetFlags(cmd, &o.target)
	return cmd
}

func (a *app) quantize(ctx context.Context, in, out string, o *quantizeOptions) error {
	types := quantTypes()
	q, ok := types[strings.ToLower(o.typ)]
	if !ok {
		return badUsage(hint.Add(fmt.Errorf("no quantization type %q", o.typ), "there are: %s", strings.Join(slices.Sorted(maps.Keys(types)), ", ")))
	}
	if err := fsx.CheckOutput(out, in); err != nil {
		return badUsage(err)
	}
	return a.withAccount(ctx, in, out, o, q.run)
}
