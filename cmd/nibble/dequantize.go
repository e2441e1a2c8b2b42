package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/formats"
	"github.com/seed18967229/nibble/formats/convert"
	"github.com/seed18967229/nibble/formats/safetensors"
	"github.com/seed18967229/nibble/internal/fsx"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/tensor"
)

func (a *app) dequantizeCommand() *cobra.Command {
	var dtype string
	var maxShard sizeFlag
	cmd := &cobra.Command{
		Use:   "dequantize IN OUT",
		Short: "Decode a quantized model to safetensors in 16 or 32 bits",
		Long: `Decode every quantized weight of a model into a Hugging Face directory. With
--dtype auto each gets the type it had before it was quantized, or f16 where
that is not known. Of a directory whose family nibble does not know the tensors
keep their names.

Where OUT ends in .safetensors it is one file, with the tensors under the names
that they have in IN, which may then be a single file too.`,
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

func (a *app) dequantize(ctx context.Context, path, out, dtype string, maxShard int64) error {
	d, err := parseOutType(dtype)
	if err != nil {
		return err
	}
	file := strings.HasSuffix(out, ".safetensors")
	switch {
	case isGGUF(out):
		return badUsage(hint.Add(fmt.Errorf("%s: dequantize writes a Hugging Face directory, or a .safetensors file", out), "nibble convert decodes into a .gguf file"))
	case file && maxShard != 0:
		return badUsage(fmt.Errorf("--max-shard-size is of directories, and %s is a file", out))
	}
	in, err := formats.Open(path)
	if err != nil {
		return err
	}
	defer in.Close()
	if err := fsx.CheckOutput(out, append(in.Paths(), in.Path)...); err != nil {
		return badUsage(err)
	}
	m := &model{Input: in}
	var r *writeResult
	switch {
	case file:
		r, err = a.dequantizeFile(ctx, m, out, d)
	case in.Kind == formats.Safetensors || in.Kind == formats.Torch:
		err = badUsage(hint.Add(fmt.Errorf("%s is a single file without a config.json and can only become a .safetensors file", path),
			"to decode the model, give its directory"))
	default:
		r, err = a.dequantizeDir(ctx, m, out, d, maxShard)
	}
	if err != nil {
		return err
	}
	return a.print(r)
}

// dequantizeDir decodes a model into a directory.
func (a *app) dequantizeDir(ctx context.Context, m *model, out string, d tensor.DType, maxShard int64) (*writeResult, error) {
	src, origin, err := m.decodable()
	if err != nil {
		return nil, err
	}
	plan, err := castPlan(src, func(info tensor.Info) tensor.DType { return plainType(src, info, d) }, origin)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", m.Path, err)
	}
	return a.writeDir(ctx, m, src, plan, out, dirOptions{dtype: m.orOwn(d), drop: m.quantization(), maxShard: maxShard})
}

// decodable returns the tensors of a quantized model, by the names of its family or,
// where that is not known or the model has other parts than text, by those it has.
func (m *model) decodable() (tensor.Source, func(string) convert.Origin, error) {
	err := m.understand()
	switch {
	case m.HF != nil && errors.Is(err, arch.ErrUnsupported), err == nil && m.HF != nil && m.view.Partial():
		m.view = nil
		if err = m.decode(); err == nil {
			err = m.checkQuantized()
		}
		return m.stored, nil, err
	case m.GGUF != nil && errors.Is(err, tensor.ErrUnsupported) && hint.Of(err) == "":
		err = hint.Add(err, "an OUT that ends in .safetensors takes the tensors under their own names")
	}
	if err == nil {
		err = m.checkQuantized()
	}
	if err != nil {
		return nil, nil, err
	}
	return m.view, m.view.Origin, nil
}

func (m *model) checkQuantized() error {
	if m.quantized() {
		return nil
	}
	return hint.Add(fmt.Errorf("%s: %w: no weight of it is quantized", m.Path, tensor.ErrUnsupported), "nibble convert changes the type of a plain model")
}

// dequantizeFile decodes any input's tensors into a file.
func (a *app) dequantizeFile(ctx context.Context, m *model, out string, d tensor.DType) (*writeResult, error) {
	if m.GGUF != nil {
		m.stored = m.Input
	} else if err := m.decode(); err != nil {
		return nil, err
	}
	if err := m.checkQuantized(); err != nil {
		return nil, err
	}
	plan, err := castPlan(m.stored, func(info tensor.Info) tensor.DType { return plainType(m.stored, info, d) }, nil)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", m.Path, err)
	}
	plan.Drop = m.merged
	if m.GGUF != nil { // whose metadata is not text
		plan.Meta = tensor.Meta{{Key: "format", Value: "pt"}}
	}
	w, err := safetensors.Create(out, a.force)
	if err != nil {
		return nil, err
	}
	if err := a.runPlan(ctx, m.Path, plan, m.stored, w); err != nil {
		return nil, err
	}
	r := newWriteResult(job{m.Path, plan, m.stored, m.stored, nil}, out)
	r.Notes = readNotes(m.Input)
	return r, nil
}

// plainType returns what a tensor is decoded to: d, or if that is tensor.Invalid its own
// type, the one it had before it was quantized, or F16. Integers stay what they are.
func plainType(src tensor.Source, info tensor.Info, d tensor.DType) tensor.DType {
	if d == tensor.Invalid {
		d = tensor.F16
		if own := floatOf(src, info); own != tensor.Invalid {
			d = own
		}
	}
	return retyped(info, d)
}
