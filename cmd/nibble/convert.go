package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/seed18967229/nibble/formats"
	"github.com/seed18967229/nibble/formats/convert"
	"github.com/seed18967229/nibble/formats/gguf"
	"github.com/seed18967229/nibble/formats/hf"
	"github.com/seed18967229/nibble/formats/safetensors"
	"github.com/seed18967229/nibble/formats/vocab"
	"github.com/seed18967229/nibble/internal/fsx"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/memory"
	"github.com/seed18967229/nibble/pipeline"
	"github.com/seed18967229/nibble/tensor"
)

func (a *app) convertCommand() *cobra.Command {
	var o convertOptions
	cmd := &cobra.Command{
		Use:   "convert IN OUT",
		Short: "Convert between Hugging Face directories and GGUF, or between dtypes",
		Long: `Convert a model. OUT ending in .gguf becomes a GGUF file, anything else a
Hugging Face directory; a single .safetensors file becomes another one.

--outtype auto keeps the types of a directory; for GGUF it is bf16 if the model
is BF16, else f16. 4-bit weights are decoded unless a directory keeps them.`,
		Example: "  nibble convert stories260K stories260K.gguf --outtype f16\n  nibble convert stories260K.gguf stories260K-hf",
		Args:    exactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.convert(cmd.Context(), args[0], args[1], o)
		},
	}
	cmd.Flags().StringVar(&o.outType, "outtype", "auto", strings.Join(convert.OutTypes(), ", "))
	cmd.Flags().Var(&o.maxShard, "max-shard-size", "largest shard of a directory (default 5GB)")
	preFlag(cmd, &o.pre)
	return cmd
}

// convertOptions are the flags of convert.
type convertOptions struct {
	outType, pre string
	maxShard     sizeFlag
}

// preFlag adds the flag of the commands that write GGUF files of directories.
func preFlag(cmd *cobra.Command, to *string) {
	cmd.Flags().StringVar(to, "pre", "", "tokenizer.ggml.pre of a .gguf file: llama-bpe, qwen2, ... (default: found out)")
}

// writeResult is what a command that writes a model ends with.
type writeResult struct {
	In  string `json:"in"`
	Out string `json:"out"`

	// Actions counts the tensors by what was done to them.
	Actions map[string]int `json:"actions"`
	Bytes   int64          `json:"bytes"`
	Notes   []string       `json:"notes,omitempty"`

	PeakRSS int64 `json:"peak_rss"`

	order []string
}

func newWriteResult(in, out string, p *pipeline.Plan) *writeResult {
	r := &writeResult{In: in, Out: out, Actions: make(map[string]int), Bytes: p.Size()}
	for _, s := range p.Steps {
		if r.Actions[s.Action] == 0 {
			r.order = append(r.order, s.Action)
		}
		r.Actions[s.Action]++
	}
	for range p.Drop {
		r.Actions["drop"]++
	}
	return r
}

func (r *writeResult) text(w io.Writer) {
	var actions []string
	for _, a := range r.order {
		actions = append(actions, fmt.Sprintf("%d %s", r.Actions[a], a))
	}
	fmt.Fprintf(w, "%s: %s in tensors (%s); peak memory %s\n", r.Out, memory.FormatSize(r.Bytes), strings.Join(actions, ", "), memory.FormatSize(r.PeakRSS))
	for _, n := range r.Notes {
		fmt.Fprintf(w, "  %s\n", n)
	}
}

// parseOutType reads an output type that a directory can have; auto is
// tensor.Invalid.
func parseOutType(name string) (tensor.DType, error) {
	switch name {
	case "auto":
		return tensor.Invalid, nil
	case "f32", "f16", "bf16":
		return tensor.ParseDType(strings.ToUpper(name))
	}
	return tensor.Invalid, badUsage(hint.Add(fmt.Errorf("no output type %q for a directory", name), "there are: f32, f16, bf16, auto; GGUF has q8_0 too"))
}

func (a *app) convert(ctx context.Context, in, out string, o convertOptions) error {
	if err := fsx.CheckOutput(out, in); err != nil {
		return badUsage(err)
	}
	file, err := formats.Open(in)
	if err != nil {
		return err
	}
	if file.Kind == formats.Safetensors {
		defer file.Close()
		return a.castFile(ctx, file, out, o.outType)
	}
	file.Close()
	m, err := openModel(in)
	if err != nil {
		return err
	}
	defer m.Close()
	if isGGUF(out) {
		r, err := a.writeGGUF(ctx, m, m.view, out, o.outType, o.pre)
		if err != nil {
			return err
		}
		return a.print(r)
	}
	d, err := parseOutType(o.outType)
	if err != nil {
		return err
	}
	var src tensor.Source = m.view
	var drop []string
	keep := d == tensor.Invalid && m.HF != nil
	if keep {
		src = m.HF // as stored, 4-bit weights and all
	} else if m.quantized() {
		drop = []string{"quantization_config"}
	}
	plan, err := castPlan(src, func(info tensor.Info) tensor.DType {
		switch {
		case keep:
			return info.DType
		case d != tensor.Invalid:
			return d
		case info.DType.Float():
			return info.DType
		}
		return tensor.F16 // what a block type of GGUF decodes to unless told
	})
	if err != nil {
		return err
	}
	r, err := a.writeDir(ctx, m, src, plan, out, dirOptions{dtype: d, drop: drop, maxShard: int64(o.maxShard)})
	if err != nil {
		return err
	}
	if m.gguf != nil {
		r.Notes = m.gguf.Notes
	}
	return a.print(r)
}

func isGGUF(path string) bool { return strings.HasSuffix(path, ".gguf") }

// castPlan returns the plan that stores every tensor of src as the DType that
// to gives for it.
func castPlan(src tensor.Source, to func(tensor.Info) tensor.DType) (*pipeline.Plan, error) {
	p := &pipeline.Plan{Meta: src.Meta()}
	for info := range src.All() {
		d := to(info)
		if d == info.DType {
			p.Steps = append(p.Steps, pipeline.Copy(info, info.Name))
			continue
		}
		s, err := pipeline.Cast(codecs, info.Name, tensor.Info{Name: info.Name, DType: d, Shape: info.Shape})
		if err != nil {
			return nil, err
		}
		if info.DType.Opaque() || !info.DType.Float() {
			s.Action = "dequantize"
		}
		p.Steps = append(p.Steps, s)
	}
	return p, nil
}

// writeGGUF writes src, which has the tensors of m, as a GGUF file.
func (a *app) writeGGUF(ctx context.Context, m *model, src tensor.Source, out, outType, pre string) (*writeResult, error) {
	if !strings.Contains(" "+strings.Join(convert.OutTypes(), " ")+" ", " "+outType+" ") {
		return nil, badUsage(hint.Add(fmt.Errorf("no output type %q for GGUF", outType), "there are: %s", strings.Join(convert.OutTypes(), ", ")))
	}
	v, err := m.openVocab(vocab.Options{Pre: pre})
	if err != nil {
		return nil, err
	}
	view, plan, err := convert.ToGGUF(src, codecs, m.arch, v, convert.GGUFOptions{OutType: outType, Name: m.name()})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", m.Path, err)
	}
	w, err := gguf.Create(out, a.force)
	if err != nil {
		return nil, err
	}
	if err := a.runPlan(ctx, m.Path, plan, view, w); err != nil {
		return nil, err
	}
	r := newWriteResult(m.Path, out, plan)
	r.Notes = v.Notes
	r.PeakRSS = memory.PeakRSS()
	return r, nil
}

// dirOptions say how writeDir makes a directory.
type dirOptions struct {
	// dtype is that of the weights, tensor.Invalid what m has.
	dtype tensor.DType

	// set and drop change config.json.
	set  []hf.Field
	drop []string

	maxShard int64
}

// writeDir runs a plan on src into a model directory with the configuration and
// side files of m.
func (a *app) writeDir(ctx context.Context, m *model, src tensor.Source, plan *pipeline.Plan, out string, o dirOptions) (*writeResult, error) {
	if o.dtype == tensor.Invalid {
		o.dtype = m.dtype()
	}
	files, err := m.checkpointFiles(o.dtype, o.set, o.drop...)
	if err != nil {
		return nil, err
	}
	w, err := hf.Create(out, hf.Options{MaxShardSize: o.maxShard, Force: a.force, Files: files})
	if err != nil {
		return nil, err
	}
	if err := a.runPlan(ctx, m.Path, plan, src, w); err != nil {
		return nil, err
	}
	r := newWriteResult(m.Path, out, plan)
	r.PeakRSS = memory.PeakRSS()
	return r, nil
}

// castFile converts one safetensors file into another.
func (a *app) castFile(ctx context.Context, in *formats.Input, out, outType string) error {
	if !strings.HasSuffix(out, ".safetensors") {
		return badUsage(hint.Add(fmt.Errorf("%s is a single file without a config.json and can only become another .safetensors file", in.Path),
			"to convert the model, give its directory"))
	}
	d, err := parseOutType(outType)
	if err != nil {
		return err
	}
	plan, err := castPlan(in, func(info tensor.Info) tensor.DType {
		if d == tensor.Invalid || !info.DType.Float() {
			return info.DType
		}
		return d
	})
	if err != nil {
		return err
	}
	w, err := safetensors.Create(out, a.force)
	if err != nil {
		return err
	}
	if err := a.runPlan(ctx, in.Path, plan, in, w); err != nil {
		return err
	}
	r := newWriteResult(in.Path, out, plan)
	r.PeakRSS = memory.PeakRSS()
	return a.print(r)
}
