package data

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/train/data/chat"
	"github.com/seed18967229/nibble/train/data/records"
)

// Prompt is a row as a model is asked it: what leads to an answer, and the answer.
type Prompt struct {
	Path string
	Line int64

	// Where is the place in the file, as errors have it.
	Where string

	Text, Answer string

	// Tokens are those that stand before the answer in training, BOS among them. Rest is
	// the end of Text that they leave out: where the tokenizer joins it with the beginning
	// of the answer, as a space with a word, the model has only seen the token of both.
	Tokens []int32
	Rest   string

	Chat bool // the template made Text
}

// Prompts reads the rows of a data set one after the other: of a folder those of the
// test data, else of the validation data, else of the training data. Of a pair and of
// alpaca the completion is the answer; of a chat the last turn of the assistant, and the
// template makes the text of the turns before it. A row that is one text is split behind
// the last mark in it; "" is none.
//
// The last pair has an error, if there was one; errors are as those of OpenAll.
func Prompts(path string, o Options, mark string) iter.Seq2[Prompt, error] {
	o.asking, o.Mask = true, MaskDefault
	return func(yield func(Prompt, error) bool) {
		paths, err := promptFiles(path)
		if err != nil {
			yield(Prompt{}, err)
			return
		}
		for _, p := range paths {
			if !o.promptsOf(p, mark, yield) {
				return
			}
		}
	}
}

func promptFiles(path string) ([]string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return []string{path}, nil
	}
	train, valid, test, err := records.Find(path)
	for _, paths := range [][]string{test, valid} {
		if len(paths) > 0 && (err == nil || errors.Is(err, fs.ErrNotExist)) {
			return paths, nil
		}
	}
	return train, err
}

// promptsOf reads one file, and reports whether more is wanted.
func (o *Options) promptsOf(path, mark string, yield func(Prompt, error) bool) bool {
	fail := func(err error) bool {
		yield(Prompt{}, err)
		return false
	}
	r, err := records.Open(path, records.Options{ScratchDir: o.ScratchDir})
	if err != nil {
		return fail(err)
	}
	defer r.Close()
	if r.Text() {
		return fail(hint.Add(fmt.Errorf("%s: %w: plain text has no prompts and answers", path, tensor.ErrUnsupported), shapes))
	}
	x := &reading{o: o, r: r}
	for {
		row, err := r.Next()
		if err == io.EOF {
			return true
		}
		if err == nil && x.layout == nil {
			err = x.begin(row)
		}
		if err != nil {
			return fail(err)
		}
		p, err := x.prompt(row.Value, mark)
		if err != nil {
			return fail(x.at(row.Line, row.Value, err))
		}
		p.Path, p.Line, p.Where = path, row.Line, r.Where(row.Line)
		if !yield(p, nil) {
			return false
		}
	}
}

// prompt makes the prompt of a row.
func (x *reading) prompt(row jsontext.Value, mark string) (p Prompt, err error) {
	fields, err := parseObject(row)
	if err != nil {
		return p, err
	}
	d, err := x.layout.make(x.o, x.layout, fields)
	if err != nil {
		return p, err
	}
	from := len(d.text)
	switch {
	case d.rendered:
		p.Chat, p.Answer = true, d.answer
	case d.masked:
		from = d.trained[0].From
	case mark == "":
		return p, hint.Add(fmt.Errorf("%w: the row is one text, and it is not said where the answer begins", tensor.ErrMalformed),
			"say with --match-split what stands before it, as in --match-split 'A: '")
	default:
		at := strings.LastIndex(d.text, mark)
		if at < 0 {
			return p, hint.Add(fmt.Errorf("%w: %q is not in the text", tensor.ErrMalformed, mark), "say with --match-split what stands before every answer, or remove the row")
		}
		from = at + len(mark)
	}
	p.Text, p.Answer = d.text[:from], p.Answer+d.text[from:]
	tokens, ends, _ := x.o.tokens(d)
	n := len(tokens) - len(ends)
	read := 0 // of the text
	for _, end := range ends {
		if end > from {
			break
		}
		read = end
		n++
	}
	if p.Tokens, p.Rest = tokens[:n], p.Text[read:]; p.Text == "" || n == 0 {
		return p, hint.Add(fmt.Errorf("%w: the prompt is empty", tensor.ErrMalformed), "remove the row")
	}
	return p, nil
}

// asked is a chat up to the last turn of the assistant, and that turn's text.
func (o *Options) asked(in chat.Input, turns []message) (document, error) {
	var last struct {
		Role    string         `json:"role"`
		Content jsontext.Value `json:"content"`
	}
	at := len(turns) - 1
	for ; at >= 0; at-- {
		if json.Unmarshal(turns[at], &last) == nil && last.Role == "assistant" {
			break
		}
	}
	switch {
	case at < 0:
		return document{}, hint.Add(fmt.Errorf("%w: the assistant has no turn", tensor.ErrMalformed), "remove the row")
	case at == 0:
		return document{}, hint.Add(fmt.Errorf("%w: there is no turn before the assistant's", tensor.ErrMalformed), "remove the row")
	case last.Content.Kind() != '"':
		return document{}, hint.Add(fmt.Errorf("%w: the last turn of the assistant is not a text", tensor.ErrMalformed), "remove the row")
	}
	answer, err := jsontext.AppendUnquote(nil, last.Content)
	if err != nil {
		return document{}, err
	}
	in.Messages, in.AddGenerationPrompt = slices.Clip(in.Messages[:at]), true
	r, err := o.Template.Render(in)
	return document{text: r.Text, answer: string(answer), rendered: true}, templateFailed(err)
}
