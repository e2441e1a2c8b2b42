package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/seed18967229/nibble/formats/vocab"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/train/data/tokenizer"
	"github.com/seed18967229/nibble/train/engine"
	trainmodel "github.com/seed18967229/nibble/train/model"
)

// A writer writes on from texts with a model: what generate and chat share.
type writer struct {
	model     *model
	vocab     *vocab.Vocab
	tokenizer *tokenizer.Tokenizer
	settings  *generationSettings
	adapters  map[string]trainmodel.Trainable
	paths     map[string]string // where they are
	adapter   string            // the name of the one that is in use
	beside    string            // the file of the chat template, if it lies with that
	engine    *engine.Engine
	generator *engine.Generator
	context   int // tokens of a sequence at most
}

// openWriter opens a model, and its adapters. start makes its engine.
func openWriter(path string, adapters []adapterFlag) (_ *writer, err error) {
	w := &writer{adapter: noAdapter}
	if w.model, err = openModel(path); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			w.close()
		}
	}()
	if w.vocab, w.tokenizer, err = w.model.tokenizer(); err != nil {
		return nil, err
	}
	if w.settings, err = w.model.generationSettings(w.vocab); err != nil {
		return nil, err
	}
	if w.adapters, err = w.model.attachAll(adapters); err != nil {
		return nil, err
	}
	w.paths = make(map[string]string)
	for _, a := range adapters {
		w.paths[a.name] = a.path
	}
	if len(adapters) > 0 {
		w.adapter = adapters[0].name
	}
	return w, nil
}

func (w *writer) close() {
	if w.engine != nil {
		w.engine.Close()
	}
	w.model.Close()
}

// start makes the engine, for sequences of up to so many tokens. asked is
// model.generating's.
func (w *writer) start(positions int, asked string, budget int64) (err error) {
	if w.engine, w.context, err = w.model.generating(w.adapters, positions, asked, budget); err != nil {
		return err
	}
	w.generator = w.engine.NewGenerator()
	return w.use(w.adapter)
}

// use puts an adapter on.
func (w *writer) use(name string) error {
	t, ok := w.adapters[name]
	if !ok {
		return hint.Add(fmt.Errorf("there is no adapter by the name of %q", name), "there is %s", strings.Join(slices.Sorted(maps.Keys(w.adapters)), ", "))
	}
	w.adapter = name
	w.engine.Use(t)
	return nil
}

// encode returns the tokens of what a template made: special ones are found in it, and
// one that begins sequences is put in front unless it is there.
func (w *writer) encode(text string) []int32 {
	bos := ""
	if w.vocab.BOS != vocab.None {
		bos = w.tokenizer.Piece(w.vocab.BOS)
	}
	return onceBOS(w.tokenizer.EncodeWith(text, tokenizer.Options{ParseSpecial: true, BOS: w.vocab.AddBOS && (bos == "" || !strings.HasPrefix(text, bos))}), w.vocab)
}

// onceBOS returns tokens that begin with BOS once, whatever a template wrote: so it is in
// training.
func onceBOS(tokens []int32, v *vocab.Vocab) []int32 {
	for len(tokens) > 1 && v.BOS != vocab.None && tokens[0] == v.BOS && tokens[1] == v.BOS {
		tokens = tokens[1:]
	}
	return tokens
}

// How a text ended.
const (
	stoppedEnd         = "eos"
	stoppedStop        = "stop"
	stoppedLength      = "length"
	stoppedInterrupted = "interrupted"
)

// written is a text that a model wrote.
type written struct {
	Tokens  []int32 `json:"tokens"`
	Text    string  `json:"text"`
	Stopped string  `json:"stopped"`

	turn engine.Turn
}

// perSecond is how many tokens were made in a second.
func (x *written) perSecond() float64 {
	if x.turn.Made < 2 || x.turn.Making <= 0 {
		return 0
	}
	return float64(x.turn.Made-1) / x.turn.Making.Seconds() // the first one came of the prompt
}

// write continues tokens and shows the text as it comes: whole characters, and nothing
// that may be the beginning of what it is to stop at. That of an answer is a text of its
// own, which begins with no space that only parts words. What there is of it is returned even
// with an error. That ctx was cancelled is no error.
func (w *writer) write(ctx context.Context, prompt []int32, answer bool, o *samplingFlags, ends []int32, show io.Writer) (*written, error) {
	x := &written{Tokens: []int32{}, Stopped: stoppedLength}
	end := make(map[int32]bool, len(ends))
	for _, id := range ends {
		end[id] = true
	}
	dec := w.tokenizer.NewDecoder()
	if !answer {
		for _, id := range prompt {
			dec.Next(id)
		}
	}
	stops := &stopper{stops: o.stop}
	var failed error
	put := func(text string) {
		x.Text += text
		if text != "" && failed == nil {
			_, failed = io.WriteString(show, text)
		}
	}
	// feed reports whether a text to stop at has come.
	feed := func(text string) bool {
		text, stopped := stops.next(text)
		put(text)
		if stopped {
			x.Stopped = stoppedStop
		}
		return stopped
	}
	var err error
	if o.maxTokens > 0 {
		x.turn, err = w.generator.Generate(ctx, prompt, o.Sampling, func(id int32) bool {
			if end[id] {
				x.Stopped = stoppedEnd
				return false
			}
			x.Tokens = append(x.Tokens, id)
			return !feed(dec.Next(id)) && failed == nil && len(x.Tokens) < o.maxTokens
		})
	}
	if x.Stopped != stoppedStop && !feed(dec.Flush()) {
		put(stops.flush())
	}
	switch {
	case failed != nil:
		return x, failed
	case err != nil && ctx.Err() != nil:
		x.Stopped = stoppedInterrupted
		return x, nil
	case err != nil && (errors.Is(err, tensor.ErrMalformed) || errors.Is(err, tensor.ErrUnsupported)):
		return x, fmt.Errorf("%s: %w", w.model.Path, err)
	}
	return x, err
}
