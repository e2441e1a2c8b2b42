package main

import (
	"context"
	"fmt"
	"iter"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/seed18967229/nibble/formats"
	"github.com/seed18967229/nibble/formats/convert"
	"github.com/seed18967229/nibble/formats/gguf"
	"github.com/seed18967229/nibble/formats/modelcard"
	"github.com/seed18967229/nibble/formats/vocab"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/tensor"
)

// general makes the general.* entries of a GGUF file.
type general struct {
	of    func(p modelcard.Params) (tensor.Meta, []string)
	notes []string
}

func (g *general) meta(tensors iter.Seq[tensor.Info]) tensor.Meta {
	meta, notes := g.of(modelcard.CountParams(tensors))
	g.notes = append(g.notes, notes...)
	return meta
}

// general returns what the model's files say about it, or the user; of a GGUF
// file, what its own metadata does.
func (m *model) general(o *convertOptions) (*general, error) {
	if m.GGUF != nil {
		var own tensor.Meta
		for _, kv := range m.GGUF.Meta() {
			if modelcard.Covers(kv.Key) {
				own = append(own, kv)
			}
		}
		return &general{of: func(modelcard.Params) (tensor.Meta, []string) { return own, nil }}, nil
	}
	card, err := modelcard.Read(m.Path)
	if err != nil {
		return nil, err
	}
	if card.Override, err = o.override(); err != nil {
		return nil, err
	}
	return &general{
		of:    func(p modelcard.Params) (tensor.Meta, []string) { return card.GGUF(m.name(), p) },
		notes: card.Notes,
	}, nil
}

// override is what the flags say of the model, nil for nothing.
func (o *convertOptions) override() (*modelcard.Override, error) {
	v := &modelcard.Override{}
	if o.metadata != "" {
		var err error
		if v, err = modelcard.ReadOverride(o.metadata); err != nil {
			return nil, err
		}
	}
	if o.name != "" {
		v.Name = o.name
	}
	return v, nil
}

// checkGGUFType refuses an output type that GGUF files do not have.
func checkGGUFType(outType string) error {
	if !slices.Contains(convert.OutTypes(), outType) {
		return badUsage(hint.Add(fmt.Errorf("no output type %q for GGUF", outType), "there are: %s", strings.Join(convert.OutTypes(), ", ")))
	}
	return nil
}

// writeGGUF writes src, which has the tensors of m, as a GGUF file.
func (a *app) writeGGUF(ctx context.Context, m *model, src tensor.Source, out string, o *convertOptions) (*writeResult, error) {
	if err := checkGGUFType(o.outType); err != nil {
		return nil, err
	}
	g, err := m.planGGUF(src, o)
	if err != nil {
		return nil, err
	}
	r, err := a.runToGGUF(ctx, m.Input, out, job{m.Path, g.Plan, g.Source, m.original(), m.view.Origin}, o)
	if err != nil {
		return nil, err
	}
	r.Notes = slices.Concat(r.Notes, g.Notes)
	return r, nil
}

// planGGUF plans the GGUF file of src, which has the tensors of m.
func (m *model) planGGUF(src tensor.Source, o *convertOptions) (*convert.GGUF, error) {
	if err := vocab.CheckPre(o.pre); err != nil {
		return nil, badUsage(err)
	}
	v, err := m.openVocab(vocab.Options{Pre: o.pre})
	if err != nil {
		return nil, err
	}
	general, err := m.general(o)
	if err != nil {
		return nil, err
	}
	if m.HF != nil {
		if src, err = m.view.Listed(src, m.HF.Listed()); err != nil {
			return nil, err
		}
	}
	g, err := convert.ToGGUF(src, codecs, m.arch, v, convert.GGUFOptions{OutType: o.outType, General: general.meta})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", m.Path, err)
	}
	g.Plan.Drop = slices.Concat(g.Plan.Drop, m.view.Dropped, m.merged)
	g.Notes = slices.Concat(v.Notes, general.notes, g.Notes)
	return g, nil
}

// copyGGUF writes the tensors and the metadata of a GGUF file of any kind into
// another one, or several.
func (a *app) copyGGUF(ctx context.Context, in *formats.Input, out string, o *convertOptions) (*writeResult, error) {
	if o.pre != "" || o.name != "" || o.metadata != "" || o.base != "" {
		return nil, badUsage(hint.Add(fmt.Errorf("%s is a GGUF file, whose metadata stays as it is", in.Path), "leave out --pre, --model-name, --metadata and --base"))
	}
	plan, err := castPlan(in, func(info tensor.Info) tensor.DType { return info.DType }, nil)
	if err != nil {
		return nil, err
	}
	return a.runToGGUF(ctx, in, out, job{in.Path, plan, in, in, nil}, o)
}

// checkOwnMeta refuses to replace the metadata of a GGUF file.
func (o *convertOptions) checkOwnMeta(in *formats.Input) error {
	if o.pre != "" || o.name != "" || o.metadata != "" {
		return badUsage(hint.Add(fmt.Errorf("%s is a GGUF file, whose metadata stays as it is", in.Path), "leave out --pre, --model-name and --metadata"))
	}
	return nil
}

// retypeGGUF writes a GGUF model of a known family with other types.
func (a *app) retypeGGUF(ctx context.Context, in *formats.Input, out string, o *convertOptions) (*writeResult, error) {
	if err := checkGGUFType(o.outType); err != nil {
		return nil, err
	}
	if err := o.checkOwnMeta(in); err != nil {
		return nil, err
	}
	m := &model{Input: in}
	if err := m.understand(); err != nil {
		return nil, err
	}
	plan, err := convert.Retype(in, codecs, m.arch, o.outType)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", in.Path, err)
	}
	return a.runToGGUF(ctx, in, out, job{in.Path, plan, in, in, nil}, o)
}

// runToGGUF does a job on in that makes a GGUF file or its parts.
func (a *app) runToGGUF(ctx context.Context, in *formats.Input, out string, j job, o *convertOptions) (*writeResult, error) {
	split, err := o.split()
	if err != nil {
		return nil, err
	}
	if split != (gguf.SplitOptions{}) && in.GGUF != nil && sameModel(in.Path, out) {
		return nil, badUsage(hint.Add(fmt.Errorf("%s: its parts could be those that are read", out), "choose another name for the output"))
	}
	w, err := gguf.CreateSplit(out, split, a.force)
	if err != nil {
		return nil, err
	}
	if err := a.runPlan(ctx, j.path, j.plan, j.src, w); err != nil {
		return nil, err
	}
	r := newWriteResult(j, out)
	if paths := w.Paths(); len(paths) > 1 {
		r.Files = paths
	}
	r.Notes = readNotes(in)
	return r, nil
}

// partOf is the end of the name of a part.
var partOf = regexp.MustCompile(`(-\d{5}-of-\d{5})?\.gguf$`)

// sameModel reports whether two GGUF files could be parts of one.
func sameModel(a, b string) bool {
	stem := func(path string) string {
		abs, err := filepath.Abs(path)
		if err != nil {
			abs = path
		}
		return partOf.ReplaceAllString(abs, "")
	}
	return stem(a) == stem(b)
}
