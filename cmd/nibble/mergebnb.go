package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/seed18967229/nibble/formats/convert"
	"github.com/seed18967229/nibble/formats/hf"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/nf4"
	"github.com/seed18967229/nibble/nf4/bnb"
	"github.com/seed18967229/nibble/pipeline"
	"github.com/seed18967229/nibble/tensor"
)

// writeMergedBnb quantizes to a type of bitsandbytes.
func (a *app) writeMergedBnb(ctx context.Context, m *mergedModel, out string, o *outputOptions) (*writeResult, error) {
	d, err := parseOutType(o.dtype)
	if err != nil {
		return nil, err
	}
	opts, err := o.bnb.parse(bnbTypes[o.quantize])
	if err != nil {
		return nil, err
	}
	src, err := m.plain(d)
	if err != nil {
		return nil, err
	}
	b, err := newBnbInput(m.model, &convert.View{Source: src, Origins: m.view.Origins, Dropped: m.view.Dropped}, &opts)
	if err != nil {
		return nil, err
	}
	plan, account, err := bnb.Plan(b.src, codecs, opts)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", m.Path, err)
	}
	m.nameActions(plan)
	set := append(slices.Clone(m.config), hf.Field{Name: "quantization_config", Value: account.QuantizationConfig()})
	to := dirOptions{dtype: m.orOwn(d), set: set, files: m.files, drop: m.quantization(), maxShard: int64(o.bnb.maxShard)}
	if err := m.about.describe(m.model, plan, &to); err != nil {
		return nil, err
	}
	r, err := a.writeDir(ctx, m.model, b.src, plan, out, to)
	if err != nil {
		return nil, err
	}
	s := summarize(r, account, opts)
	r.Bytes, r.Notes = s.Bytes, slices.Concat(r.Notes, b.notes)
	return r, nil
}

// writeMergedBnbAlike quantizes what changes as the base is. Quantized weights that do
// not change are copied, and so is the quantization_config.
func (a *app) writeMergedBnbAlike(ctx context.Context, m *mergedModel, out string, o *outputOptions) (*writeResult, error) {
	if o.dtype != "auto" {
		return nil, badUsage(hint.Add(fmt.Errorf("--dtype %s with --quantize keep, which keeps the type that weights had", o.dtype), "leave one of them out"))
	}
	plain, err := m.plain(tensor.Invalid)
	if err != nil {
		return nil, err
	}
	view, err := (&convert.View{Source: plain, Origins: m.view.Origins, Dropped: m.view.Dropped}).OutIn(m.arch, codecs)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", m.Path, err)
	}
	s := scheme{opts: bnb.Options{BlockSizes: make(map[string]int)}, parts: bnb.Stored(m.Input)}
	var entries []tensor.Entry
	for info := range m.view.All() {
		stored := m.view.Origin(info.Name).From[0]
		switch parts := s.parts[stored]; {
		case parts == nil:
			now, err := plain.Info(info.Name)
			if err != nil {
				return nil, err
			}
			entries = append(entries, tensor.Forward(plain, now, info.Name))
		case m.targets[info.Name]:
			if err := s.again(m.stored, m.Input, info.Name, stored); err != nil {
				return nil, fmt.Errorf("%s: %w", m.Path, err)
			}
			now, err := view.Info(info.Name)
			if err != nil {
				return nil, err
			}
			entries = append(entries, tensor.Forward(view, now, info.Name))
		default:
			module, as := strings.TrimSuffix(stored, ".weight"), strings.TrimSuffix(info.Name, ".weight")
			for _, part := range parts {
				entries = append(entries, tensor.Forward(m.Input, part, as+strings.TrimPrefix(part.Name, module)))
			}
		}
	}
	src, err := tensor.NewTable(plain.Meta(), entries)
	if err != nil {
		return nil, err
	}
	if len(s.parts) == 0 {
		return nil, badUsage(hint.Add(fmt.Errorf("--quantize keep: %s has no weights of bitsandbytes that could be kept", m.Path), "name a type, as --quantize nf4, or leave the flag out"))
	}
	var plan *pipeline.Plan
	if len(s.opts.Linear) > 0 {
		s.opts.Was = func(info tensor.Info) tensor.DType { return plainType(src, info, tensor.Invalid) }
		plan, _, err = bnb.Plan(src, codecs, s.opts)
	} else {
		plan, err = castPlan(src, func(info tensor.Info) tensor.DType { return info.DType }, nil)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", m.Path, err)
	}
	m.nameActions(plan)
	to := dirOptions{set: m.config, files: m.files, maxShard: int64(o.bnb.maxShard)}
	if err := m.about.describe(m.model, plan, &to); err != nil {
		return nil, err
	}
	return a.writeDir(ctx, m.unmerged(), src, plan, out, to)
}

// unmerged returns the model as one of which all stored tensors are used.
func (m *mergedModel) unmerged() *model {
	return &model{Input: m.Input, stored: m.Input, view: m.view, arch: m.arch, template: m.template}
}

// scheme is how a base is quantized.
type scheme struct {
	opts  bnb.Options
	parts map[string][]tensor.Info // by weight, as stored
}

// again has a weight quantized as it is in view, stored in raw under the name stored.
func (s *scheme) again(view, raw tensor.Source, name, stored string) error {
	info, err := view.Info(stored)
	if err != nil {
		return err
	}
	o := &s.opts
	if o.Type != tensor.Invalid && o.Type != info.DType {
		return fmt.Errorf("tensor %q: %w: it is %v, and others are %v", name, tensor.ErrUnsupported, info.DType, o.Type)
	}
	first := o.Type == tensor.Invalid
	o.Type = info.DType
	o.Linear = append(o.Linear, name)
	if info.DType == tensor.INT8 {
		return nil
	}
	h, err := nf4.Describe(view, stored)
	if err != nil {
		return err
	}
	storage, err := raw.Info(stored)
	if err != nil {
		return err
	}
	if storage.DType == tensor.I8 {
		storage.DType = tensor.U8 // as bitsandbytes reads it
	}
	if !first && (o.DoubleQuant != h.Double || o.Storage != storage.DType) {
		return fmt.Errorf("tensor %q: %w: it is stored otherwise than the others: double quantization %t, codes as %v", name, tensor.ErrUnsupported, h.Double, storage.DType)
	}
	o.DoubleQuant, o.Storage = h.Double, storage.DType
	if first {
		o.BlockSize = int(h.BlockSize)
	}
	o.BlockSizes[name] = int(h.BlockSize)
	return nil
}
