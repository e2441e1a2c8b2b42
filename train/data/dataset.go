package data

import (
	"fmt"
	"math"
	"slices"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/tensor"
)

// Dataset is a sequence of examples. It is safe for concurrent use.
type Dataset struct {
	files   []*File
	weights []float64 // as in Source; nil is 1 each
	stats   Stats
	src     examples
}

// dataset puts files together. Weights are as in Source; nil is 1 each.
func (o *Options) dataset(files []*File, weights []float64) (*Dataset, error) {
	d := &Dataset{files: files, weights: weights}
	var parts []examples
	for _, f := range files {
		parts = append(parts, f.src)
		d.stats.add(f.Stats)
	}
	return d, d.mix(parts, o.Seed)
}

// mix makes the examples of the data set.
func (d *Dataset) mix(parts []examples, seed uint64) error {
	if len(parts) == 1 && (d.weights == nil || d.weights[0] == 1) {
		d.src = parts[0]
		return nil
	}
	var m mix
	for i, p := range parts {
		weight := 1.0
		if d.weights != nil {
			weight = d.weights[i]
		}
		part := newPart(p, weight, seed+uint64(i))
		if part.len() == 0 {
			return fmt.Errorf("%s: %w: a weight of %v is less than one of its %d examples", d.files[i].Path, tensor.ErrMalformed, weight, p.len())
		}
		m = append(m, part)
	}
	d.src = m
	return nil
}

// split takes a validation set from each file's examples.
func (o *Options) split(files []*File, weights []float64) (train, valid *Dataset, err error) {
	train, valid = &Dataset{files: files, weights: weights}, &Dataset{files: files}
	total := 0
	for _, f := range files {
		total += f.src.len()
	}
	var kept, taken []examples
	for i, f := range files {
		n := f.src.len()
		share := o.ValSplit
		if share >= 1 {
			share /= float64(total)
		}
		k := int(math.Round(share * float64(n)))
		if len(files) == 1 && k == 0 {
			k = 1
		}
		if k >= n {
			return nil, nil, hint.Add(fmt.Errorf("%s: %w: a validation set of %v leaves none of its %d examples to train on", f.Path, tensor.ErrMalformed, o.ValSplit, n), "lower --val-split")
		}
		perm := Permutation(o.Seed^splitSeed, int64(i), n)
		own, rest := slices.Clone(perm[:k]), slices.Clone(perm[k:])
		slices.Sort(own)
		slices.Sort(rest)
		stats, v := f.Stats, &subset{f.src, own}
		var of Stats
		for j := range k {
			e, err := v.example(j)
			if err != nil {
				return nil, nil, err
			}
			of.count(e, 0)
		}
		valid.stats.add(of)
		stats.Examples, stats.Tokens, stats.Labels, stats.Longest = stats.Examples-of.Examples, stats.Tokens-of.Tokens, stats.Labels-of.Labels, 0
		t := &subset{f.src, rest}
		for j := range rest {
			stats.Longest = max(stats.Longest, t.length(j))
		}
		train.stats.add(stats)
		kept, taken = append(kept, t), append(taken, v)
	}
	taken = slices.DeleteFunc(taken, func(e examples) bool { return e.len() == 0 })
	if err := train.mix(kept, o.Seed); err != nil {
		return nil, nil, err
	}
	return train, valid, valid.mix(taken, o.Seed)
}

// splitSeed keeps the choice of validation examples apart from the order of training.
const splitSeed = 0x76616c6964 // "valid"

// pack puts several rows into each example.
func (o *Options) pack(d *Dataset) {
	d.stats.Examples, d.stats.Longest = 0, 0
	packed := func(src examples) examples {
		p := newPacks(src, o.MaxSeqLength)
		d.stats.Examples += p.len()
		for i := range p.len() {
			d.stats.Longest = max(d.stats.Longest, p.length(i))
		}
		return p
	}
	if m, ok := d.src.(mix); ok {
		for i, p := range m {
			weight := float64(p.len()) / float64(p.of.len())
			m[i] = newPart(packed(p.of), weight, p.seed)
		}
		return
	}
	d.src = packed(d.src)
}

// Path returns the file that the examples come from, the first of several.
func (d *Dataset) Path() string { return d.files[0].Path }

// Len returns the number of examples in an epoch, at least 1.
func (d *Dataset) Len() int { return d.src.len() }

// Stats returns the totals of all examples, each counted once whatever its weight.
func (d *Dataset) Stats() Stats { return d.stats }

// IsText reports whether the examples are windows of one file of plain text, which
// ReadText returns whole.
func (d *Dataset) IsText() bool {
	_, ok := d.src.(*windows)
	return ok
}

// Example returns one example of the first epoch. It may be changed; its Tokens have
// room for no more.
func (d *Dataset) Example(i int) (Example, error) { return d.ExampleOf(0, i) }

// ExampleOf returns one example of an epoch. They are the same in each, unless a data
// set has a weight that is not whole.
func (d *Dataset) ExampleOf(epoch int64, i int) (Example, error) {
	if i < 0 || i >= d.Len() {
		return Example{}, fmt.Errorf("%s: example %d of %d", d.Path(), i, d.Len())
	}
	if m, ok := d.src.(mix); ok {
		return m.exampleOf(epoch, i)
	}
	return d.src.example(i)
}
