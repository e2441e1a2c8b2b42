package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/seed18967229/nibble/internal/fsx"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/tensor"
)

func (a *app) dequantizeCommand() *cobra.Command {
	var dtype string
	var maxShard sizeFlag
	cmd := &cobra.Command{
		Use:   "dequantize IN OUT",
		Short: "Decode a quantized model to a plain Hugging Face directory",
		Long: `Decode every quantized weight. With --dtype auto each gets the type it had
before it was quantized, or f16 where that is not known.`,
		Example: "  nibble dequantize stories260K-nf4 stories260K-f32 --dtype f32",
		Args:    exactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.dequantize(cmd.Context(), args[0], args[1], dtype, int64(maxShard))
		},
	}
	cmd.Flags().StringVar(&dtype, "dtype", "auto", "f32, f16, bf16, auto")
	cmd.Flags().Var(&maxShard, "max-shard-size", "largest shard (default 5GB)")
	return cmd
}

func (a *app) dequantize(ctx context.Context, in, out, dtype string, maxShard int64) error {
	d, err := parseOutType(dtype)
	if err != nil {
		return err
	}
	if isGGUF(out) {
		return badUsage(hint.Add(fmt.Errorf("%s: dequantize writes a Hugging Face directory", out), "nibble convert decodes into a .gguf file"))
	}
	if err := fsx.CheckOutput(out, in); err != nil {
		return badUsage(err)
	}
	m, err := openModel(in)
	if err != nil {
		return err
	}
	defer m.Close()
	if !m.quantized() {
		return hint.Add(fmt.Errorf("%s: %w: no weight of it is quantized", in, tensor.ErrUnsupported), "nibble convert changes the type of a plain model")
	}
	plan, err := castPlan(m.view, func(info tensor.Info) tensor.DType { return plainType(m.view, info, d) }, m.view.Origin)
	if err != nil {
		return err
	}
	r, err := a.writeDir(ctx, m, m.view, plan, out, dirOptions{dtype: m.orOwn(d), drop: m.quantization(), maxShard: maxShard})
	if err != nil {
		return err
	}
	return a.print(r)
}

// plainType returns what a tensor is decoded to: d, or if that is
// tensor.Invalid its own type, the one it had before it was quantized, or F16.
func plainType(src tensor.Source, info tensor.Info, d tensor.DType) tensor.DType {
	if d != tensor.Invalid {
		return d
	}
	if own := floatOf(src, info); own != tensor.Invalid {
		return own
	}
	return tensor.F16
}
