package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/formats"
	"github.com/seed18967229/nibble/formats/convert"
	"github.com/seed18967229/nibble/formats/hf"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/pipeline"
	"github.com/seed18967229/nibble/tensor"
)

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

// retyped returns what a tensor becomes where a type is asked for: that type if
// it holds numbers of a model, and what it is if it holds integers. With
// tensor.Invalid nothing is asked for.
func retyped(info tensor.Info, to tensor.DType) tensor.DType {
	switch d := info.DType; {
	case to == tensor.Invalid:
		return d
	case d.Float(), d.Opaque(), blockType(d), d == tensor.F8_E4M3, d == tensor.F8_E5M2, d == tensor.F8_E8M0:
		return to
	}
	return info.DType
}

// castPlan returns the plan that stores every tensor of src as the DType that
// to gives for it. origin says what the tensors are made of; it may be nil.
func castPlan(src tensor.Source, to func(tensor.Info) tensor.DType, origin func(string) convert.Origin) (*pipeline.Plan, error) {
	p := &pipeline.Plan{Meta: src.Meta()}
	for info := range src.All() {
		s := pipeline.Copy(info, info.Name)
		if d := to(info); d != info.DType {
			var err error
			if s, err = pipeline.Cast(codecs, info.Name, tensor.Info{Name: info.Name, DType: d, Shape: info.Shape}); err != nil {
				return nil, err
			}
			if info.DType.Opaque() || blockType(info.DType) {
				s.Action = "dequantize"
			}
		}
		if origin != nil {
			s.Derive(nil, origin(info.Name).Change)
		}
		p.Steps = append(p.Steps, s)
	}
	return p, nil
}

// castDir converts a directory into another one. Its family does not matter.
func (a *app) castDir(ctx context.Context, in *formats.Input, out string, o *convertOptions) (*writeResult, error) {
	to, err := parseOutType(o.outType)
	if err != nil {
		return nil, err
	}
	m := &model{Input: in}
	if to == tensor.Invalid {
		m.stored = in // as it is, quantized weights and all
	} else if err := m.decode(); err != nil {
		return nil, err
	}
	opts := dirOptions{dtype: to, maxShard: int64(o.maxShard)}
	if to != tensor.Invalid && m.quantized() {
		if a, err := arch.ParseConfig(in.HF.Config()); err == nil && a.FanInFanOut() {
			// bitsandbytes has turned some of the weights around.
			return nil, badUsage(hint.Add(fmt.Errorf("%s: --outtype %s of a quantized model whose weights are stored as [in, out]", in.Path, o.outType), "nibble dequantize decodes it"))
		}
		opts.drop = m.quantization()
	}
	plan, err := castPlan(m.stored, func(info tensor.Info) tensor.DType { return retyped(info, to) }, nil)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", in.Path, err)
	}
	return a.writeDir(ctx, m, m.stored, plan, out, opts)
}

// fromGGUF converts a GGUF model into a directory.
func (a *app) fromGGUF(ctx context.Context, m *model, out string, o *convertOptions) (*writeResult, error) {
	to, err := parseOutType(o.outType)
	if err != nil {
		return nil, err
	}
	choose := func(info tensor.Info) tensor.DType { return retyped(info, to) }
	if to == tensor.Invalid {
		if choose, to, err = m.gguf.OwnTypes(codecs); err != nil {
			return nil, fmt.Errorf("%s: %w", m.Path, err)
		}
	}
	plan, err := castPlan(m.view, choose, m.view.Origin)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", m.Path, err)
	}
	notes, err := m.gguf.Notes()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", m.Path, err)
	}
	r, err := a.writeDir(ctx, m, m.view, plan, out, dirOptions{dtype: to, maxShard: int64(o.maxShard)})
	if err != nil {
		return nil, err
	}
	r.Notes = append(r.Notes, notes...)
	return r, nil
}

// dirOptions say how writeDir makes a directory.
type dirOptions struct {
	// dtype is that of the weights; tensor.Invalid is what config.json says.
	dtype tensor.DType

	// set and drop change config.json.
	set  []hf.Field
	drop []string

	// files are in place of the model's of the same names.
	files []hf.SideFile

	// notes are of what was decided before.
	notes []string

	maxShard int64

	// sink, if it is not nil, returns what is written to in place of the directory, which
	// has these files beside the tensors.
	sink func(dir tensor.Sink, files []hf.SideFile) tensor.Sink
}

// writeDir runs a plan on src into a model directory with the configuration and
// side files of m.
func (a *app) writeDir(ctx context.Context, m *model, src tensor.Source, plan *pipeline.Plan, out string, o dirOptions) (*writeResult, error) {
	var origin func(string) convert.Origin
	if m.view != nil {
		origin = m.view.Origin
		plan.Drop = append(plan.Drop, m.view.Dropped...)
	}
	plan.Drop = append(plan.Drop, m.merged...)
	files, err := m.checkpointFiles(o)
	if err != nil {
		return nil, err
	}
	for _, own := range o.files {
		files = append(slices.DeleteFunc(files, func(f hf.SideFile) bool { return f.Name == own.Name }), own)
	}
	w, err := hf.Create(out, hf.Options{MaxShardSize: o.maxShard, Shards: shardsOf(m.HF, plan), Force: a.force, Files: files})
	if err != nil {
		return nil, err
	}
	var dst tensor.Sink = w
	if o.sink != nil {
		dst = o.sink(dst, files)
	}
	if err := a.runPlan(ctx, m.Path, plan, src, dst); err != nil {
		return nil, err
	}
	r := newWriteResult(job{m.Path, plan, src, m.original(), origin}, out)
	r.Notes = slices.Concat(readNotes(m.Input), o.notes)
	return r, nil
}
