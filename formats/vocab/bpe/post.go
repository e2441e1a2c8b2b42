package bpe

import (
	"errors"
	"fmt"

	"github.com/seed18967229/nibble/tensor"
)

// wrap names the part that an error is about. The error keeps its kind first.
func wrap(part string, err error) error {
	switch {
	case errors.Is(err, tensor.ErrMalformed), errors.Is(err, tensor.ErrUnsupported):
		return fmt.Errorf("%s: %w", part, err)
	}
	return fmt.Errorf("%s: %w: %v", part, tensor.ErrMalformed, err)
}

// compileProcessor returns the tokens that a post-processor puts around one text.
func compileProcessor(p PostProcessor, depth int) (front, back []int32, err error) {
	switch p := p.(type) {
	case nil, *ByteLevel:
		return nil, nil, nil
	case *Ends:
		return []int32{p.Cls.ID}, []int32{p.Sep.ID}, nil
	case *Template:
		return p.around()
	case *PostProcessorSequence:
		if depth > maxDepth {
			return nil, nil, unsupported("post-processors nested more than %d deep", maxDepth)
		}
		for _, sub := range p.Processors {
			f, b, err := compileProcessor(sub, depth+1)
			if err != nil {
				return nil, nil, err
			}
			front, back = append(f, front...), append(back, b...)
		}
		return front, back, nil
	}
	return nil, nil, unsupported("post-processor %T", p)
}

// around returns the tokens of the template for one text before and after it.
func (t *Template) around() (front, back []int32, err error) {
	texts := 0
	for _, p := range t.Single {
		switch {
		case p.SpecialToken != nil && p.Sequence == nil:
			s, ok := t.SpecialTokens[p.SpecialToken.ID]
			if !ok {
				return nil, nil, malformed("special token %s of the template is not among its special_tokens", quote(p.SpecialToken.ID))
			}
			if len(s.IDs) > maxSteps {
				return nil, nil, unsupported("a special token of %d tokens", len(s.IDs))
			}
			if texts == 0 {
				front = append(front, s.IDs...)
			} else {
				back = append(back, s.IDs...)
			}
		case p.Sequence != nil && p.SpecialToken == nil && p.Sequence.ID == "A":
			texts++
		default:
			return nil, nil, malformed("a piece of the template that is neither text A nor a special token")
		}
		if len(front)+len(back) > maxSteps {
			return nil, nil, unsupported("a template of more than %d tokens", maxSteps)
		}
	}
	if texts != 1 {
		return nil, nil, unsupported("a template with the text %d times", texts)
	}
	return front, back, nil
}
