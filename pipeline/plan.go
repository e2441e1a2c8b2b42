package pipeline

import (
	"context"
	"fmt"
	"io"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/memory"
	"github.com/seed18967229/nibble/tensor"
)

// A Step makes one group of output tensors from its inputs.
type Step struct {
	// Action says in a word what is done, for the account of the run: "copy",
	// "cast", "permute", "nf4" ...
	Action string

	// In names the tensors of the source that are read.
	In []string

	// From names, for the account of the run, the tensors that those of In are
	// views of; nil if they are views of none.
	From []string

	// Change says in a word what making those views took, "" for nothing. It is part
	// of Action.
	Change string

	// Out describes the tensors that are written.
	Out []tensor.Info

	// Scratch is the most memory in bytes that Run allocates at a time.
	Scratch int64

	// Run writes every byte of every output; out[i] is the body of Out[i]. It
	// stops early when ctx is done.
	Run func(ctx context.Context, src tensor.Source, out []io.WriterAt) error
}

// Derive says for the account of the run that what the step reads is made from
// other tensors, and what that takes in a word, "" for nothing.
func (s *Step) Derive(from []string, change string) {
	s.From, s.Change = from, change
	switch {
	case change == "":
	case s.Action == copyAction:
		s.Action = change
	default:
		s.Action += "+" + change
	}
}

// A Drop is an input tensor that does not reach the output, and why.
type Drop struct {
	Name   string
	Reason string
}

// A Plan is everything that is decided about an output before it exists.
type Plan struct {
	Meta  tensor.Meta
	Steps []Step
	Drop  []Drop
}

// Layout returns the output tensors in file order.
func (p *Plan) Layout() []tensor.Info {
	var out []tensor.Info
	for _, s := range p.Steps {
		out = append(out, s.Out...)
	}
	return out
}

// Size returns the number of bytes of all output tensors, without headers and
// padding. Late tensors count as nothing.
func (p *Plan) Size() int64 {
	var n int64
	for _, s := range p.Steps {
		for _, o := range s.Out {
			if !o.Late() {
				n += o.Size()
			}
		}
	}
	return n
}

// Check returns an error if the plan cannot be carried out on src: a step reads
// what is not there, two steps write one name, an output is not valid, a source
// tensor is neither read nor dropped, or a step alone exceeds the memory budget
// (0 for none). It names the first such fault and counts the rest. It reads no
// tensor bytes.
func (p *Plan) Check(src tensor.Source, budget int64) error {
	var errs []error
	used := make(map[string]bool)
	written := make(map[string]bool)
	for _, d := range p.Drop {
		used[d.Name] = true
	}
	var largest Step
	for _, s := range p.Steps {
		for _, in := range s.In {
			used[in] = true
			if _, err := src.Info(in); err != nil {
				errs = append(errs, err)
			}
		}
		for _, o := range s.Out {
			if err := o.Validate(); err != nil {
				errs = append(errs, err)
			}
			if written[o.Name] {
				errs = append(errs, fmt.Errorf("tensor %q: two steps of the plan write it", o.Name))
			}
			written[o.Name] = true
		}
		if s.Scratch > largest.Scratch {
			largest = s
		}
	}
	for info := range src.All() {
		if !used[info.Name] {
			errs = append(errs, fmt.Errorf("tensor %q: %w: nothing in the plan uses it", info.Name, tensor.ErrUnsupported))
		}
	}
	if budget > 0 && largest.Scratch > budget {
		errs = append(errs, hint.Add(
			fmt.Errorf("tensor %q needs %s of memory at a time, over the budget of %s",
				largest.Out[0].Name, memory.FormatSize(largest.Scratch), memory.FormatSize(budget)),
			"give --memory %s or more", memory.AtLeast(largest.Scratch)))
	}
	switch len(errs) {
	case 0:
		return nil
	case 1:
		return errs[0]
	}
	return fmt.Errorf("%w (and %d more faults like it)", errs[0], len(errs)-1)
}
