package data

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/seed18967229/nibble/formats/vocab"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/tensor"
)

// shapes is what a row must look like.
const shapes = `want {"text": "..."} or {"prompt": "...", "completion": "..."}`

// row is one line of a file of rows.
type row struct {
	Text       *string        `json:"text"`
	Prompt     *string        `json:"prompt"`
	Completion *string        `json:"completion"`
	Messages   jsontext.Value `json:"messages"`
}

// parseRow reads a row. Keys that have no meaning here are passed over.
func parseRow(line []byte) (row, error) {
	var r row
	if kind := jsontext.Value(line).Kind(); kind != '{' {
		what := "not JSON"
		if jsontext.Value(line).IsValid() {
			what = "not an object"
		}
		return row{}, rowError(line, tensor.ErrMalformed, "%s", what)
	}
	if err := json.Unmarshal(line, &r); err != nil {
		what := "not JSON"
		if jsontext.Value(line).IsValid() {
			what = "a value of another type"
		}
		return row{}, rowError(line, tensor.ErrMalformed, "%s: %v", what, err)
	}
	switch text, pair := r.Text != nil, r.Prompt != nil || r.Completion != nil; {
	case text && pair:
		return row{}, rowError(line, tensor.ErrMalformed, "both a text and a prompt or completion")
	case text:
		return r, nil
	case r.Prompt != nil && r.Completion != nil:
		return r, nil
	case r.Prompt != nil:
		return row{}, rowError(line, tensor.ErrMalformed, "a prompt without a completion")
	case r.Completion != nil:
		return row{}, rowError(line, tensor.ErrMalformed, "a completion without a prompt")
	case r.Messages != nil:
		return row{}, rowError(line, tensor.ErrUnsupported, "chat messages")
	}
	return row{}, rowError(line, tensor.ErrMalformed, "no text and no prompt, but %s", keys(line))
}

// rowError says what is wrong with a row and shows its beginning.
func rowError(line []byte, kind error, what string, args ...any) error {
	const shown = 60
	start := strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return utf8.RuneError
		}
		return r
	}, string(line[:min(len(line), shown)]))
	if len(line) > shown {
		start += "..."
	}
	return hint.Add(fmt.Errorf("%w: %s: %s", kind, fmt.Sprintf(what, args...), start), shapes)
}

// maxKeys bounds how many keys an error lists.
const maxKeys = 5

// keys lists the keys of a row.
func keys(line []byte) string {
	var members map[string]jsontext.Value
	if err := json.Unmarshal(line, &members); err != nil || len(members) == 0 {
		return "nothing"
	}
	var names []string
	for name := range members {
		names = append(names, fmt.Sprintf("%q", name))
	}
	slices.Sort(names)
	if len(names) > maxKeys {
		names = append(names[:maxKeys], "...")
	}
	return strings.Join(names, ", ")
}

// example makes the tokens of a row, and returns how many were cut off.
func (o *Options) example(r row) (e Example, cut int, err error) {
	v := o.Tokenizer.Vocab()
	lossFrom := 0
	if v.AddBOS {
		e.Tokens = append(e.Tokens, v.BOS)
	}
	if r.Text != nil {
		if o.Mask == MaskPrompt {
			return Example{}, 0, hint.Add(fmt.Errorf("%w: the prompt is to be masked and the row has none", tensor.ErrMalformed),
				`leave --mask-prompt out, or use rows with "prompt" and "completion"`)
		}
		text := o.withoutEOS(o.withoutBOS(*r.Text))
		if text == "" {
			return Example{}, 0, hint.Add(fmt.Errorf("%w: the text is empty", tensor.ErrMalformed), "remove the row")
		}
		e.Tokens = append(e.Tokens, o.Tokenizer.Encode(text)...)
	} else {
		prompt, completion := o.withoutBOS(*r.Prompt), o.withoutEOS(*r.Completion)
		ids, ends := o.Tokenizer.EncodeOffsets(prompt + completion)
		if o.Mask != NoMask {
			// The first token with a character of the completion in it is where
			// the model starts to write.
			from, _ := slices.BinarySearch(ends, len(prompt)+1)
			lossFrom = len(e.Tokens) + from
		}
		e.Tokens = append(e.Tokens, ids...)
	}
	if v.EOS != vocab.None {
		e.Tokens = append(e.Tokens, v.EOS)
	}
	if lossFrom > 0 {
		e.Loss = make([]bool, len(e.Tokens))
		for j := range e.Loss[lossFrom:] {
			e.Loss[lossFrom+j] = true
		}
	}
	full := e
	if len(e.Tokens) > o.MaxSeqLength {
		cut = len(e.Tokens) - o.MaxSeqLength
		e.Tokens = e.Tokens[:o.MaxSeqLength]
		if e.Loss != nil {
			e.Loss = e.Loss[:o.MaxSeqLength]
		}
	}
	e.Tokens = slices.Clip(e.Tokens)
	switch {
	case e.Labels() > 0:
		return e, cut, nil
	case full.Labels() > 0:
		err = hint.Add(fmt.Errorf("%w: no token to train on: the prompt has %d tokens and examples are cut at %d", tensor.ErrMalformed, lossFrom, o.MaxSeqLength),
			"raise --max-seq-length above %d, or remove the row", lossFrom)
	default:
		err = hint.Add(fmt.Errorf("%w: no token to train on: the row has nothing to predict", tensor.ErrMalformed), "remove the row")
	}
	return Example{}, 0, err
}

// withoutBOS removes the text of the token that is added in front.
func (o *Options) withoutBOS(s string) string {
	v := o.Tokenizer.Vocab()
	if !v.AddBOS {
		return s
	}
	return strings.TrimPrefix(s, o.Tokenizer.Piece(v.BOS))
}

// withoutEOS removes the text of the token that is added at the end.
func (o *Options) withoutEOS(s string) string {
	return strings.TrimSuffix(s, o.Tokenizer.Piece(o.Tokenizer.Vocab().EOS))
}
