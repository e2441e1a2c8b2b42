package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

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
}

// nonFinite returns what is done with weights that are NaN or infinite.
func (o *quantizeOptions) nonFinite() *pipeline.NonFinite {
	return &pipeline.NonFinite{AsZero: o.nanAsZero}
}

// quantizer quantizes a model to one type.
type quantizer func(a *app, ctx context.Context, in, out string, o *quantizeOptions) error

// quantTypes are what --type may be.
func quantTypes() map[string]quantizer {
	types := make(map[string]quantizer)
	for name, d := range bnbTypes {
		types[name] = func(a *app, ctx context.Context, in, out string, o *quantizeOptions) error {
			return a.quantizeBnb(ctx, in, out, d, o)
		}
	}
	return types
}

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
	cmd.Flags().StringVar(&o.typ, "type", "nf4", strings.Join(slices.Sorted(maps.Keys(quantTypes())), ", "))
	cmd.Flags().BoolVar(&o.nanAsZero, "nan-as-zero", false, "weights that are NaN or infinite become 0; without it they stop the run")
	bnbFlags(cmd, &o.bnb)
	initFlags(cmd, &o.init)
	return cmd
}

func (a *app) quantize(ctx context.Context, in, out string, o *quantizeOptions) error {
	types := quantTypes()
	run, ok := types[strings.ToLower(o.typ)]
	if !ok {
		return badUsage(hint.Add(fmt.Errorf("no quantization type %q", o.typ), "there are: %s", strings.Join(slices.Sorted(maps.Keys(types)), ", ")))
	}
	if err := fsx.CheckOutput(out, in); err != nil {
		return badUsage(err)
	}
	return run(a, ctx, in, out, o)
}
