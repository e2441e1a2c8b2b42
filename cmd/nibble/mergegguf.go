package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/seed18967229/nibble/formats/convert"
	"github.com/seed18967229/nibble/formats/gguf"
	"github.com/seed18967229/nibble/formats/gguf/ftype"
	"github.com/seed18967229/nibble/formats/vocab"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/pipeline"
	"github.com/seed18967229/nibble/tensor"
)

// writeMergedGGUF writes a GGUF file of plain numbers or Q8_0. The sums are rounded once,
// to the type in the file; only auto looks at what the base had.
func (a *app) writeMergedGGUF(ctx context.Context, m *mergedModel, out string, o *outputOptions) (*writeResult, error) {
	file := o.gguf.file
	if file.outType = o.dtype; file.outType == "auto" {
		file.outType = "f16"
		if m.dtype() == tensor.BF16 {
			file.outType = "bf16"
		}
	}
	if err := checkGGUFType(file.outType); err != nil {
		return nil, err
	}
	src, err := m.wide()
	if err != nil {
		return nil, err
	}
	g, err := m.planGGUF(src, &file)
	if err != nil {
		return nil, err
	}
	m.nameActions(g.Plan)
	return a.runMerged(ctx, m, out, &file, job{m.Path, g.Plan, g.Source, m.original(), m.view.Origin}, g.Notes)
}

// runMerged does the job of a merge that makes a GGUF file.
func (a *app) runMerged(ctx context.Context, m *mergedModel, out string, file *convertOptions, j job, notes []string) (*writeResult, error) {
	if m.template != "" {
		j.plan.Meta = vocab.SetTemplate(j.plan.Meta, m.template)
	}
	j.plan.Meta = m.about.addTo(j.plan.Meta)
	r, err := a.runToGGUF(ctx, m.Input, out, j, file)
	if err != nil {
		return nil, err
	}
	r.Notes = slices.Concat(r.Notes, notes)
	return r, nil
}

// writeMergedQuantized writes a GGUF file of a type, in one pass.
func (a *app) writeMergedQuantized(ctx context.Context, m *mergedModel, out string, o *outputOptions) (*writeResult, error) {
	typ, ok := ftype.Types()[o.quantize]
	if !ok {
		return nil, badUsage(fmt.Errorf("no quantization type %q", o.quantize))
	}
	opts, err := o.gguf.options(typ)
	if err != nil {
		return nil, err
	}
	src, err := m.wide()
	if err != nil {
		return nil, err
	}
	var g *ggufInput
	if m.GGUF != nil {
		if g, err = m.ownFile(src, &o.gguf); err != nil {
			return nil, err
		}
	}
	if g == nil {
		if g, err = o.gguf.openModel(m.model, src); err != nil {
			return nil, err
		}
	}
	q := &ggufQuantizer{ggufInput: g, nonFinite: &pipeline.NonFinite{}}
	if err := q.readImatrix(o.gguf.imatrix); err != nil {
		return nil, err
	}
	if err := q.choose(opts); err != nil {
		return nil, err
	}
	if err := q.setPlan(typ, o.gguf.imatrix); err != nil {
		return nil, err
	}
	return a.runQuantized(ctx, m, q, typ, out, o)
}

func (a *app) runQuantized(ctx context.Context, m *mergedModel, q *ggufQuantizer, typ ftype.Type, out string, o *outputOptions) (*writeResult, error) {
	for _, c := range q.choices {
		a.detail("%-14v %s: %s", c.Out.DType, c.Out.Name, cmp.Or(c.Fallback, c.Why, "the type of the mix"))
	}
	m.nameActions(q.plan)
	account := q.account(typ)
	notes := append(q.notes, fmt.Sprintf("%.2f bits per weight", account.Bits))
	for _, f := range account.Fallbacks {
		notes = append(notes, fmt.Sprintf("%s fell back to %s, as %s", f.Name, f.DType, f.Reason))
	}
	return a.runMerged(ctx, m, out, &o.gguf.file, q.job, notes)
}

// ownFile is the GGUF file that the base is, with the tensors of src where those differ
// from it: its names, order, metadata and types stay. It is nil if adapters gave the
// model other tensors or shapes, which a file with its metadata cannot have.
func (m *mergedModel) ownFile(src tensor.Source, o *ggufOptions) (*ggufInput, error) {
	g, err := o.openGGUF(m.Input)
	if err != nil {
		return nil, err
	}
	view, err := convert.InGGUF(src, codecs, m.arch)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", m.Path, err)
	}
	for info := range view.All() {
		was, err := m.Input.Info(info.Name)
		if err != nil || was.Shape.Elems() != info.Shape.Elems() {
			return nil, nil
		}
	}
	var entries []tensor.Entry
	for info := range m.Input.All() {
		from := view.Origin(info.Name).From
		if !tensor.Has(view, info.Name) || !slices.ContainsFunc(from, func(name string) bool { return m.differs(src, name) }) {
			entries = append(entries, tensor.Forward(m.Input, info, info.Name))
			continue
		}
		now, err := view.Info(info.Name)
		if err != nil {
			return nil, err
		}
		e := tensor.Forward(view, now, info.Name)
		e.Info.Shape = info.Shape // which may lack leading dimensions of 1
		entries = append(entries, e)
	}
	if g.src, err = tensor.NewTable(m.Input.Meta(), entries); err != nil {
		return nil, err
	}
	m.inFile = view.Origin
	return g, nil
}

// differs reports whether a tensor of src is another than the base has.
func (m *mergedModel) differs(src tensor.Source, name string) bool {
	was, err := m.source().Info(name)
	if err != nil || m.targets[name] {
		return true
	}
	now, err := src.Info(name)
	return err != nil || now.DType != was.DType
}

// writeMergedAlike writes a GGUF file like the one that is the base: what does not change
// is copied, what does has the type that as returns for its own if that is one of blocks.
func (a *app) writeMergedAlike(ctx context.Context, m *mergedModel, out string, o *outputOptions, as func(tensor.DType) tensor.DType) (*writeResult, error) {
	src, err := m.wide()
	if err != nil {
		return nil, err
	}
	g, err := m.ownFile(src, &o.gguf)
	switch {
	case err != nil:
		return nil, err
	case g == nil && o.quantize == keepTypes:
		return nil, hint.Add(fmt.Errorf("%s: %w: the adapter gives the model other tensors or shapes, and --quantize keep the types of those it has", m.Path, tensor.ErrUnsupported),
			"name the type of the output: --quantize q4_k_m")
	case g == nil:
		return a.writeMergedGGUF(ctx, m, out, o)
	}
	q := &ggufQuantizer{ggufInput: g, nonFinite: &pipeline.NonFinite{}}
	if err := q.readImatrix(o.gguf.imatrix); err != nil {
		return nil, err
	}
	half, _ := gguf.FileTypeOf(tensor.F16)
	typ := ftype.Type(half)
	if own, ok := tensor.Lookup[uint32](m.GGUF.Meta(), gguf.KeyFileType); ok {
		typ = ftype.Type(own)
	}
	for _, was := range g.tensors {
		now, err := g.src.Info(was.Name)
		if err != nil {
			return nil, err
		}
		c := ftype.Choice{In: now, Out: was, Why: "as it is in the base"}
		if now.DType != was.DType && blockType(was.DType) {
			if c.Out.DType = as(was.DType); c.Out.DType != was.DType {
				c.Why, typ = "it changes, and is not quantized again", ftype.Type(half)
			}
			if err := writable(c.Out.DType); err != nil {
				return nil, hint.Add(fmt.Errorf("%s: tensor %q: %w", m.Path, was.Name, err), "name a type that can be written: --quantize q4_k_m")
			}
		}
		q.choices = append(q.choices, c)
	}
	if err := q.setPlan(typ, o.gguf.imatrix); err != nil {
		return nil, err
	}
	return a.runQuantized(ctx, m, q, typ, out, o)
}
