package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/report"
	"github.com/seed18967229/nibble/nf4/bnb"
	"github.com/seed18967229/nibble/tensor"
)

// defaultBlocks are the types that a directory's weights are chosen among, beside their
// own.
var defaultBlocks = []string{"nf4:32", "nf4:64", "nf4:128", "nf4:256"}

// keepName stands in --types for the type that a tensor has.
const keepName = "keep"

// blockOptions reads --types for a directory.
func (o *targetOptions) blockOptions(double bool) (list []encoding, keep bool, err error) {
	names := o.types
	if names == nil {
		names = append(slices.Clone(defaultBlocks), keepName)
	}
	for _, name := range names {
		if strings.EqualFold(name, keepName) {
			keep = true
			continue
		}
		c, err := parseCandidate(strings.ToLower(name), 64, double)
		if err != nil {
			return nil, false, err
		}
		if c.of.block == 0 || len(list) > 0 && c.of.dtype != list[0].dtype {
			return nil, false, badUsage(hint.Add(fmt.Errorf("--types %s: bitsandbytes has one type for all layers of a model, with a block size for each", strings.Join(names, ",")),
				"for a directory list nf4 (or fp4) with block sizes, as nf4:32, and keep; a .gguf file can mix types"))
		}
		list = append(list, c.of)
	}
	if len(list) == 0 {
		return nil, false, badUsage(fmt.Errorf("--types has nothing to quantize to"))
	}
	return list, keep, nil
}

// chooseBlocks chooses the block size of each weight and completes the options with it.
func (a *app) chooseBlocks(ctx context.Context, b *bnbInput, m *model, opts *bnb.Options, all *quantizeOptions) error {
	o := &all.target
	list, keep, err := o.blockOptions(opts.DoubleQuant)
	if err != nil {
		return err
	}
	opts.Type = list[0].dtype
	_, account, err := bnb.Plan(b.src, codecs, *opts)
	if err != nil {
		return fmt.Errorf("%s: %w", m.Path, err)
	}
	important, err := all.importances()
	if err != nil {
		return err
	}
	table := make(map[string]matrix)
	for _, t := range m.arch.Tensors() {
		name := t.Name
		if m.view.Partial() { // whose tensors keep the names that are stored
			name = m.view.Origin(name).From[0]
		}
		table[name] = matrix{Tensor: t}
	}
	var choices []choosable
	var weights, fixed int64
	for _, x := range account.Results() {
		weights += x.Shape.Elems()
		if !x.Quantized() {
			fixed += x.After
			continue
		}
		info, err := b.src.Info(x.Name)
		if err != nil {
			return err
		}
		c := choosable{name: x.Name, source: info, group: report.Group(x.Name), options: slices.Clone(list)}
		if was := b.plain(info, opts); keep && was != tensor.Invalid {
			c.options = append(c.options, encoding{dtype: was})
		}
		if t, ok := table[x.Name]; ok && important != nil {
			c.importance = important(t)
		}
		choices = append(choices, c)
	}
	limit := o.budget(weights, 0) - fixed
	size := func(c choosable, e encoding) int64 { return e.size(c.source.Shape) }
	picked, err := a.choose(ctx, o, b.src, choices, limit, important != nil, opts.NonFinite, size)
	if err != nil {
		return o.tooSmall(err, m.Path, fixed+least(choices, size), 0, weights)
	}
	opts.BlockSizes = make(map[string]int)
	sizes := make(map[int]int)
	for i, c := range choices {
		opts.BlockSizes[c.name] = picked.of[i].block
		sizes[picked.of[i].block]++
	}
	// What is said of the model as a whole is what most of its weights have.
	for size, n := range sizes {
		if most := sizes[opts.BlockSize]; size != 0 && (n > most || n == most && size < opts.BlockSize) {
			opts.BlockSize = size
		}
	}
	return a.announce(all, picked.report, limit+fixed, fixed)
}

// plain returns the type that a weight has where it is not quantized.
func (b *bnbInput) plain(info tensor.Info, o *bnb.Options) tensor.DType {
	if o.Was != nil && (info.DType.Opaque() || blockType(info.DType)) {
		return o.Was(info)
	}
	if info.DType.Float() {
		return info.DType
	}
	return tensor.Invalid
}
