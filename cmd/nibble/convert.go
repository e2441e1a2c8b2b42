package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/seed18967229/nibble/formats"
	"github.com/seed18967229/nibble/formats/convert"
	"github.com/seed18967229/nibble/formats/gguf"
	"github.com/seed18967229/nibble/formats/safetensors"
	"github.com/seed18967229/nibble/internal/fsx"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/tensor"
)

// convertOptions are the flags of convert.
type convertOptions struct {
	outType string
	base    string

	maxShard sizeFlag // of a directory

	// Of a GGUF file.
	splitSize           sizeFlag
	splitTensors        int
	noTensorFirst       bool
	pre, name, metadata string

	loss lossOptions
}

func (a *app) convertCommand() *cobra.Command {
	var o convertOptions
	cmd := &cobra.Command{
		Use:   "convert IN OUT",
		Short: "Convert between Hugging Face directories and GGUF, between dtypes, split and merge files",
		Long: `Convert a model or an adapter. OUT ending in .gguf becomes a GGUF file, anything
else a directory; a single file of tensors, .safetensors or PyTorch's .bin, .pt
and .pth, becomes a .safetensors file. Nothing in a PyTorch file is executed.

--outtype auto keeps the types of a directory, and of a GGUF file that becomes
another one: that splits it, or merges its parts. For a GGUF file made from a
directory auto is the type of its first BF16 or F16 matrix, else f16. Quantized
weights are decoded unless the output can keep them.

An adapter needs --base, the model it was trained on, unless its configuration
names a directory that is here.`,
		Example: "  nibble convert stories260K stories260K.gguf --outtype f16\n  nibble convert stories260K.gguf stories260K-hf",
		Args:    exactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.convert(cmd.Context(), args[0], args[1], &o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.outType, "outtype", "auto", strings.Join(convert.OutTypes(), ", "))
	f.Var(&o.maxShard, "max-shard-size", "largest shard of a directory (default: the shards of the input, else 5GB)")
	o.ggufFlags(cmd)
	f.StringVar(&o.base, "base", "", "the model that an adapter belongs to")
	reportFlag(cmd, &o.loss)
	return cmd
}

// ggufFlags adds the flags of a GGUF file that is written.
func (o *convertOptions) ggufFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.Var(&o.splitSize, "split-max-size", "split a GGUF file: most bytes of tensors in a part")
	f.IntVar(&o.splitTensors, "split-max-tensors", 0, "split a GGUF file: most tensors in a part")
	f.BoolVar(&o.noTensorFirst, "no-tensor-first-split", false, "keep the tensors out of the first part")
	preFlag(cmd, &o.pre)
	f.StringVar(&o.name, "model-name", "", "general.name of a GGUF file")
	f.StringVar(&o.metadata, "metadata", "", "JSON file with general.* of a GGUF file, in place of what the model card says")
}

// preFlag adds the flag of the commands that write GGUF files of directories.
func preFlag(cmd *cobra.Command, to *string) {
	cmd.Flags().StringVar(to, "pre", "", "tokenizer.ggml.pre of a GGUF file: llama-bpe, qwen2, ... (default: found out)")
}

// split returns how a GGUF file is split.
func (o *convertOptions) split() (gguf.SplitOptions, error) {
	s := gguf.SplitOptions{MaxSize: int64(o.splitSize), MaxTensors: o.splitTensors, NoTensorFirst: o.noTensorFirst}
	if s.MaxTensors < 0 {
		return s, badUsage(fmt.Errorf("--split-max-tensors is %d, want 1 or more", s.MaxTensors))
	}
	if s.NoTensorFirst && s.MaxSize == 0 && s.MaxTensors == 0 {
		return s, badUsage(fmt.Errorf("--no-tensor-first-split needs --split-max-size or --split-max-tensors"))
	}
	return s, nil
}

// check refuses flags that say nothing about the output, so that none is given
// in vain.
func (o *convertOptions) check(out string) error {
	if isGGUF(out) {
		if o.maxShard != 0 {
			return badUsage(hint.Add(fmt.Errorf("--max-shard-size is of directories, and %s is a GGUF file", out), "its parts have --split-max-size"))
		}
		return nil
	}
	for _, f := range []struct {
		given bool
		name  string
	}{
		{o.splitSize != 0, "split-max-size"}, {o.splitTensors != 0, "split-max-tensors"}, {o.noTensorFirst, "no-tensor-first-split"},
		{o.pre != "", "pre"}, {o.name != "", "model-name"}, {o.metadata != "", "metadata"},
	} {
		if f.given {
			return badUsage(hint.Add(fmt.Errorf("--%s is of GGUF files, and %s is none", f.name, out), "give an OUT that ends in .gguf, or leave the flag out"))
		}
	}
	return nil
}

func isGGUF(path string) bool { return strings.HasSuffix(path, ".gguf") }

func (a *app) convert(ctx context.Context, path, out string, o *convertOptions) error {
	if err := o.check(out); err != nil {
		return err
	}
	in, err := formats.Open(path)
	if err != nil {
		return err
	}
	defer in.Close()
	if err := fsx.CheckOutput(out, append(in.Paths(), in.Path)...); err != nil {
		return badUsage(err)
	}
	if err := o.loss.check(a, path, out); err != nil {
		return err
	}
	if o.loss.files != nil && !isModel(in) {
		return badUsage(hint.Add(fmt.Errorf("--report is of models, and %s is none", path), "leave it out; nibble diff compares any two files"))
	}
	r, err := a.convertInput(ctx, in, out, o)
	if err != nil {
		return err
	}
	if !a.json || o.loss.files == nil {
		if err := a.print(r); err != nil || o.loss.files == nil {
			return err
		}
	}
	if o.loss.converted = true; o.outType != "auto" {
		o.loss.typ = strings.ToUpper(o.outType)
	}
	loss, err := a.account(ctx, path, out, &o.loss)
	return errors.Join(err, a.printAccounted(r, nil, loss))
}

// convertInput does what the formats of input and output ask for.
func (a *app) convertInput(ctx context.Context, in *formats.Input, out string, o *convertOptions) (*writeResult, error) {
	adapter := in.Adapter != nil || in.GGUF != nil && convert.IsAdapter(in.Meta())
	switch {
	case in.Kind == formats.Safetensors || in.Kind == formats.Torch:
		return a.castFile(ctx, in, out, o)
	case in.GGUF != nil && isGGUF(out) && o.outType == "auto":
		return a.copyGGUF(ctx, in, out, o)
	case adapter:
		return a.convertAdapter(ctx, in, out, o)
	case o.base != "":
		return nil, badUsage(fmt.Errorf("--base is for adapters, and %s is a %s", in.Path, in.Kind))
	case in.GGUF != nil && isGGUF(out):
		return a.retypeGGUF(ctx, in, out, o)
	case in.HF != nil && !isGGUF(out):
		return a.castDir(ctx, in, out, o)
	}
	m := &model{Input: in}
	if err := m.understand(); err != nil {
		return nil, err
	}
	if !isGGUF(out) {
		return a.fromGGUF(ctx, m, out, o)
	}
	return a.writeGGUF(ctx, m, m.view, out, o)
}

// castFile converts a file of tensors into a safetensors file.
func (a *app) castFile(ctx context.Context, in *formats.Input, out string, o *convertOptions) (*writeResult, error) {
	if !strings.HasSuffix(out, ".safetensors") {
		return nil, badUsage(hint.Add(fmt.Errorf("%s is a single file without a config.json and can only become a .safetensors file", in.Path),
			"to convert the model, give its directory"))
	}
	to, err := parseOutType(o.outType)
	if err != nil {
		return nil, err
	}
	plan, err := castPlan(in, func(info tensor.Info) tensor.DType { return retyped(info, to) }, nil)
	if err != nil {
		return nil, err
	}
	w, err := safetensors.Create(out, a.force)
	if err != nil {
		return nil, err
	}
	if err := a.runPlan(ctx, in.Path, plan, in, w); err != nil {
		return nil, err
	}
	r := newWriteResult(job{in.Path, plan, in, in, nil}, out)
	r.Notes = readNotes(in)
	return r, nil
}
