package convert

import (
	"cmp"
	"io"
	"slices"

	"github.com/seed18967229/nibble/pipeline"
	"github.com/seed18967229/nibble/tensor"
)

// An Origin says what a tensor of a view is made of.
type Origin struct {
	// From names the tensors of the input: the one that a tensor is or is a part
	// of, or all those that are stacked in it.
	From []string

	// Change says in a word what becomes of them, "" if nothing but the name
	// does: see Changes.
	Change string
}

// The changes of an Origin.
const (
	permute   = "permute"   // rows of rotary heads, between halves and pairs
	stackUp   = "stack"     // the experts of a layer, into one tensor
	unstack   = "unstack"   // one expert of a stack, or one of two projections of it
	addOne    = "add 1"     // to the weight of a norm, as GGUF holds Gemma's
	takeOne   = "take 1"    // from it
	transpose = "transpose" // rows and columns of a Conv1D's weight
)

// Changes explains the changes that an Origin names, and other actions of this
// package's plans.
func Changes() map[string]string {
	return map[string]string{
		permute:   "the rows of rotary heads, between halves and pairs",
		stackUp:   "the experts of a layer in one tensor",
		unstack:   "one expert or projection out of a stack",
		addOne:    "to a norm's weight, as llama.cpp multiplies with it",
		takeOne:   "from a norm's weight, as transformers adds it",
		transpose: "rows and columns of a Conv1D",
		generated: "from the configuration",
	}
}

// generated is the action of a tensor that no input has.
const generated = "make"

// A View is a model's tensors under the names of its family's table.
type View struct {
	tensor.Source

	// Origins has the tensors whose name or content is not that of the input.
	Origins map[string]Origin

	// Dropped are the tensors of the input that are not in the view.
	Dropped []pipeline.Drop
}

// Origin returns what a tensor of the view is made of.
func (v *View) Origin(name string) Origin {
	if o, ok := v.Origins[name]; ok {
		return o
	}
	return Origin{From: []string{name}}
}

// Listed returns src, which has the tensors of the view, in the order in which the
// names of the input's tensors are listed: that in which llama.cpp's converter
// meets them is hf.Dir's Listed.
func (v *View) Listed(src tensor.Source, names []string) (tensor.Source, error) {
	rank := make(map[string]int)
	for i, name := range names {
		rank[name] = i
	}
	infos := slices.SortedStableFunc(src.All(), func(a, b tensor.Info) int {
		return cmp.Compare(rank[v.Origin(a.Name).From[0]], rank[v.Origin(b.Name).From[0]])
	})
	var entries []tensor.Entry
	for _, info := range infos {
		entries = append(entries, tensor.Forward(src, info, info.Name))
	}
	return tensor.NewTable(src.Meta(), entries)
}

// slice returns the entry of a part of a stored tensor that begins at off.
func slice(src tensor.Source, name string, part tensor.Info, off int64) tensor.Entry {
	return tensor.Entry{Info: part, Open: func() (io.ReaderAt, error) {
		r, err := src.Raw(name)
		if err != nil {
			return nil, err
		}
		return io.NewSectionReader(r, off, part.Size()), nil
	}}
}
