package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/seed18967229/nibble/formats/vocab"
	"github.com/seed18967229/nibble/internal/memory"
	"github.com/seed18967229/nibble/train"
	"github.com/seed18967229/nibble/train/data"
	"github.com/seed18967229/nibble/train/data/tokenizer"
)

// preview is what train --dry-run shows of a run beside its settings and its plan.
type preview struct {
	Steps    int     `json:"steps"`
	Time     float64 `json:"seconds"`
	Evals    float64 `json:"evaluation_seconds"`
	Samples  float64 `json:"sample_seconds,omitempty"`
	Examples int     `json:"examples"`

	// Example is the first of the training examples.
	Example *renderedExample `json:"example"`

	// ChatTemplate is what Ollama calls the model's template; "other" is one that it has
	// no name for here, "" none.
	ChatTemplate string `json:"chat_template"`

	// Findings are what nibble data check would find wrong, and costs the whole run.
	Findings []finding `json:"findings,omitempty"`
}

// renderedExample is an example as the model gets it.
type renderedExample struct {
	Tokens  []int32 `json:"tokens"`
	Trained []bool  `json:"trained"`
	Text    string  `json:"text"`

	// Marked is the text with what loss is taken on between marks.
	Marked string `json:"marked"`
}

// The marks around what loss is taken on.
const (
	trainedFrom = "\u27e6"
	trainedTo   = "\u27e7"
)

// render writes out an example of which loss is taken on the tokens that loss says.
func render(tok *tokenizer.Tokenizer, tokens []int32, loss []bool) *renderedExample {
	x := &renderedExample{Tokens: tokens, Trained: loss}
	d := tok.NewDecoder()
	var text, marked strings.Builder
	on := false
	put := func(s string) {
		text.WriteString(s)
		marked.WriteString(s)
	}
	for i, id := range tokens {
		if loss[i] != on {
			put(d.Flush())
			mark := trainedFrom
			if on {
				mark = trainedTo
			}
			marked.WriteString(mark)
			d, on = tok.NewDecoder(), loss[i]
			if i > 0 {
				d.Next(tokens[i-1]) // so that it does not begin as a text does
				d.Flush()
			}
		}
		if s := d.Next(id); s != "" {
			put(s)
		} else if v := tok.Vocab(); int(id) < len(v.Pieces) && v.Pieces[id].Type == vocab.Control {
			marked.WriteString(v.Pieces[id].Text) // which no text is made of
		}
	}
	put(d.Flush())
	if on {
		marked.WriteString(trainedTo)
	}
	x.Text, x.Marked = text.String(), marked.String()
	return x
}

// lossOn says of each token of an example whether loss is taken on it.
func lossOn(x data.Example) []bool {
	loss := make([]bool, len(x.Tokens))
	x.Documents(func(from, to int) {
		for i := from + 1; i < to; i++ { // the first token of a document is never predicted
			loss[i] = x.Loss == nil || x.Loss[i]
		}
	})
	return loss
}

func newPreview(tok *tokenizer.Tokenizer, set *data.Set, plan *train.Plan, talk *talk, o *trainOptions) (*preview, error) {
	valid := 0
	if set.Valid != nil {
		valid = set.Valid.Len()
	}
	time := plan.Time(&o.Config, set.Train.Len(), valid)
	p := &preview{
		Steps: o.Config.Resolved(set.Train.Len()).Iters, Examples: set.Train.Len(),
		Time: time.Total(), Evals: time.Evaluations, Samples: time.Samples,
	}
	x, err := set.Train.Example(0)
	if err != nil {
		return nil, err
	}
	p.Example = render(tok, x.Tokens, lossOn(x))
	if t, known := talk.ollama(); known {
		p.ChatTemplate = t.Name
	} else if talk.template != nil {
		p.ChatTemplate = "other"
	}
	return p, nil
}

// longestPreview is how many characters of an example are shown.
const longestPreview = 1600

func (p *preview) text(w io.Writer) {
	fmt.Fprintf(w, "\nthe run: %d steps over %s examples", p.Steps, thousands(int64(p.Examples)))
	if p.Time > 0 {
		fmt.Fprintf(w, "; at most about %s", duration(p.Time))
		var of []string
		if p.Evals > 0 {
			of = append(of, duration(p.Evals)+" for evaluations")
		}
		if p.Samples > 0 {
			of = append(of, duration(p.Samples)+" for samples")
		}
		if len(of) > 0 {
			fmt.Fprintf(w, ", of it %s", strings.Join(of, " and "))
		}
	}
	n := 0
	for _, t := range p.Example.Trained {
		if t {
			n++
		}
	}
	fmt.Fprintf(w, "\nchat template: %s\n\nthe first example: %d tokens, loss on %d, between %s and %s:\n", describeTemplate(p.ChatTemplate), len(p.Example.Tokens), n, trainedFrom, trainedTo)
	text := []rune(p.Example.Marked)
	if len(text) > longestPreview {
		half := longestPreview / 2
		text = slices.Concat(text[:half], []rune(" [...] "), text[len(text)-half:])
	}
	for line := range strings.Lines(string(text)) {
		fmt.Fprintf(w, "  %s\n", printable(strings.TrimRight(line, "\n")))
	}
}

func describeTemplate(name string) string {
	switch name {
	case "":
		return "none: the model continues texts, and chat data needs one"
	case "other":
		return "there is one, of a kind that an Ollama Modelfile will not repeat"
	}
	return "there is one, " + name
}

// duration writes a time with as much as is known of it.
func duration(s float64) string {
	switch {
	case s < 120:
		return seconds(s)
	case s < 2*3600:
		return fmt.Sprintf("%.0f minutes", s/60)
	case s < 48*3600:
		return fmt.Sprintf("%.1f hours", s/3600)
	}
	return fmt.Sprintf("%.1f days", s/86400)
}

// describeExports says what will be made of the result.
func describeExports(w io.Writer, list []*export) {
	for _, e := range list {
		fmt.Fprintf(w, "export %s: works, %s in %s\n", e.Spec, memory.FormatSize(e.Bytes), e.Out)
		for _, n := range e.Notes {
			fmt.Fprintf(w, "  %s\n", n)
		}
	}
}
