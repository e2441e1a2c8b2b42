package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/seed18967229/nibble/formats/convert"
	"github.com/seed18967229/nibble/formats/gguf/ftype"
	"github.com/seed18967229/nibble/formats/peft"
	"github.com/seed18967229/nibble/nf4/bnb"
	"github.com/seed18967229/nibble/pipeline"
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/train"
)

// exportPlan finds out what an export will take, by planning it on the base: the result
// has its tensors. Nothing of the weights is read.
type exportPlan struct {
	*model
	o         *trainOptions
	e         *export
	trainable int64

	size  int64
	notes []string
	err   error
}

// merging says into what the adapter is merged.
func (p *exportPlan) merging() {
	if p.o.Full() || !p.quantized() {
		return
	}
	p.notes = append(p.notes, "the base is quantized: the adapter is merged into what it decodes to, which is what it was trained on, and not into the original weights")
}

// directory plans a directory of plain numbers.
func (p *exportPlan) directory() {
	d, err := parseOutType(p.e.typ)
	if err == nil {
		_, err = p.checkpointFiles(dirOptions{dtype: p.orOwn(d)})
	}
	var plan *pipeline.Plan
	if err == nil {
		plan, err = castPlan(p.view, func(info tensor.Info) tensor.DType { return p.plainType(info, d) }, nil)
	}
	if p.err = err; err == nil {
		p.size = plan.Size()
		p.merging()
	}
}

// bnb plans a directory that is quantized as bitsandbytes does.
func (p *exportPlan) bnb() {
	opts, err := (&bnbOptions{}).parse(bnbTypes[p.e.typ])
	if err != nil {
		p.err = err
		return
	}
	if _, err := p.checkpointFiles(dirOptions{dtype: p.dtype()}); err != nil {
		p.err = err
		return
	}
	plain, err := castPlan(p.view, func(info tensor.Info) tensor.DType { return p.plainType(info, tensor.Invalid) }, nil)
	if err != nil {
		p.err = err
		return
	}
	var entries []tensor.Entry
	for _, info := range plain.Layout() {
		entries = append(entries, tensor.Entry{Info: info, Open: unread})
	}
	src, err := tensor.NewTable(p.view.Meta(), entries)
	if err != nil {
		p.err = err
		return
	}
	b, err := newBnbInput(p.model, &convert.View{Source: src, Origins: p.view.Origins, Dropped: p.view.Dropped}, &opts)
	if err != nil {
		p.err = err
		return
	}
	plan, _, err := bnb.Plan(b.src, codecs, opts)
	if p.err = err; err == nil {
		p.size = plan.Size()
		p.merging()
	}
}

// unread opens a tensor of which nothing but the shape is known.
func unread() (io.ReaderAt, error) { return nil, errors.New("the tensor is not there yet") }

// file plans a GGUF file.
func (p *exportPlan) file() {
	p.merging()
	q := p.e.quantized()
	if q == keepTypes || p.GGUF != nil && p.e.typ == "auto" {
		for info := range p.Input.All() {
			p.size += info.Size()
		}
		return
	}
	if q == "" {
		file := convertOptions{outType: p.e.typ}
		g, err := p.planGGUF(p.view, &file)
		if p.err = err; err == nil {
			p.size = g.Plan.Size()
			p.notes = append(p.notes, g.Notes...)
		}
		return
	}
	typ := ftype.Types()[q]
	var o ggufOptions
	opts, err := o.options(typ)
	if err != nil {
		p.err = err
		return
	}
	var g *ggufInput
	if p.GGUF != nil {
		g, err = o.openGGUF(p.Input)
	} else {
		g, err = o.openModel(p.model, p.view)
	}
	if err != nil {
		p.err = err
		return
	}
	z := &ggufQuantizer{ggufInput: g, nonFinite: &pipeline.NonFinite{}}
	if p.err = z.choose(opts); p.err != nil {
		return
	}
	if p.err = z.setPlan(typ, ""); p.err == nil {
		p.size = z.plan.Size()
	}
}

// adapter plans the GGUF file of the adapter, of the shapes that it will have.
func (p *exportPlan) adapter() {
	c, err := adapterConfig(p.o, p.arch)
	if err == nil {
		err = cannotBeGGUF(c)
	}
	if err != nil {
		p.err = fmt.Errorf("a GGUF adapter is a product for each layer and nothing more: %w", err)
		return
	}
	_, params, err := train.NewTrainable(p.arch, p.view, codecs, &p.o.Config)
	if err != nil {
		p.err = err
		return
	}
	var entries []tensor.Entry
	for _, x := range params {
		entries = append(entries, tensor.Entry{Info: tensor.Info{Name: x.Name, DType: tensor.F32, Shape: x.Shape}, Open: unread})
	}
	src, err := tensor.NewTable(nil, entries)
	if err != nil {
		p.err = err
		return
	}
	scale := convert.AdapterScale{Rank: c.R, Alpha: c.LoraAlpha, UseRSLoRA: c.UseRSLoRA}
	if len(c.RankPattern)+len(c.AlphaPattern) > 0 {
		scale = convert.AdapterScale{Alpha: c.LoraAlpha}
	}
	g, err := convert.AdapterToGGUF(src, codecs, p.arch, scale, convert.GGUFOptions{OutType: p.e.typ})
	if p.err = err; err == nil {
		p.size = g.Plan.Size()
	}
}

// embedsTokens returns an error if an adapter of the embeddings is among the modules.
func embedsTokens(c *peft.Config) error {
	if slices.ContainsFunc(c.TargetModules.Names, func(n string) bool { return strings.HasSuffix(n, "embed_tokens") || strings.HasSuffix(n, "wte") }) {
		return fmt.Errorf("%w: an adapter of the embeddings", tensor.ErrUnsupported)
	}
	return nil
}
