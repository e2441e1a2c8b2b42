package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/seed18967229/nibble/formats/ollama"
	"github.com/seed18967229/nibble/formats/vocab"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/safeio"
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/train"
	"github.com/seed18967229/nibble/train/data"
	"github.com/seed18967229/nibble/train/data/chat"
	"github.com/seed18967229/nibble/train/data/tokenizer"
)

// saveName is the file in an output directory that has a checkpoint saved when somebody
// puts it there.
const saveName = "checkpoint.save"

// watchFlags adds the flags of what is looked at while a run goes on.
func (o *trainOptions) watchFlags(f *pflag.FlagSet) {
	w := &o.Watch
	f.StringArrayVar(&w.SamplePrompts, "sample-prompt", nil, "continue this text before training, after it and at every evaluation; may be repeated")
	f.StringVar(&o.prompts, "sample-prompts", "", "file of such texts, one a line; a line in double quotes is a JSON string, for line breaks")
	f.IntVar(&w.SampleEvery, "sample-every", w.SampleEvery, "steps between samples; 0 is with the evaluations")
	f.IntVar(&w.SampleMaxTokens, "sample-max-tokens", w.SampleMaxTokens, "tokens of a sample at most")
	f.Float64Var(&w.SampleTemperature, "sample-temperature", w.SampleTemperature, "0 takes the most likely tokens, 1 samples as the model says")
	f.BoolVar(&w.LoadBestModelAtEnd, "load-best-model-at-end", w.LoadBestModelAtEnd, "the result is that of the evaluation with the lowest loss, of which a checkpoint is kept")
	f.IntVar(&w.EarlyStoppingPatience, "early-stopping-patience", w.EarlyStoppingPatience, "end after so many evaluations in a row without a better loss than the best before; 0 is never")
	f.Float64Var(&w.EarlyStoppingThreshold, "early-stopping-threshold", w.EarlyStoppingThreshold, "by how much a loss must be lower to count as better for that")
}

// maxPrompts is the largest file of prompts that is read.
const maxPrompts = 1 << 20

// readPrompts adds the prompts of the file to those of the command line.
func (o *trainOptions) readPrompts() error {
	if o.prompts == "" {
		return nil
	}
	text, err := safeio.ReadFile(o.prompts, maxPrompts)
	if err != nil {
		return hint.Add(err, "--sample-prompts wants a file with one prompt a line")
	}
	n := 0
	for line := range strings.Lines(strings.ToValidUTF8(string(text), "\ufffd")) {
		if line = strings.TrimRight(line, "\r\n"); strings.TrimSpace(line) == "" {
			continue
		}
		var s string
		if line[0] == '"' && json.Unmarshal([]byte(line), &s) == nil {
			line = s
		}
		o.SamplePrompts = append(o.SamplePrompts, line)
		n++
	}
	if n == 0 {
		return fmt.Errorf("%s: %w: no prompt in it", o.prompts, tensor.ErrMalformed)
	}
	return nil
}

// A talk is how a model is spoken to: the chat template that its training data is made
// with, or its own, nil for none; and whether the data is chats, which prompts are then too.
type talk struct {
	template *chat.Template
	chats    bool
	given    bool // --chat-template says another than the model's own
	bos, eos string
}

func (o *trainOptions) talk(m *model, v *vocab.Vocab, set *data.Set) (*talk, error) {
	t := &talk{chats: o.apply, given: o.template != "", bos: pieceOf(v, v.BOS), eos: pieceOf(v, v.EOS)}
	for _, f := range set.Files {
		t.chats = t.chats || f.IsChat()
	}
	var err error
	if t.template, err = o.chatTemplate(m, v); err != nil && !t.chats && !t.given {
		return t, nil // which only chats need
	}
	return t, err
}

// render makes the text of a conversation that the assistant is to go on with.
func (t *talk) render(vars map[string]any, list ...ollama.Message) (string, error) {
	in := chat.Input{AddGenerationPrompt: true, BOS: t.bos, EOS: t.eos, Vars: vars}
	for _, m := range list {
		in.Messages = append(in.Messages, map[string]any{"role": m.Role, "content": m.Content})
	}
	r, err := t.template.Render(in)
	return r.Text, err
}

// prompt returns the tokens of a prompt: a text, or what a user says.
func (o *trainOptions) prompt(text string, t *talk, v *vocab.Vocab, tok *tokenizer.Tokenizer) ([]int32, error) {
	if !t.chats || t.template == nil {
		return tok.EncodeWith(text, tokenizer.Options{BOS: v.AddBOS}), nil
	}
	var vars map[string]any
	if o.vars != "" {
		if err := json.Unmarshal([]byte(o.vars), &vars); err != nil {
			return nil, badUsage(fmt.Errorf("--chat-template-kwargs: %w", err))
		}
	}
	text, err := t.render(vars, ollama.Message{Role: ollama.User, Content: text})
	if err != nil {
		return nil, err
	}
	return onceBOS(tok.EncodeWith(text, tokenizer.Options{BOS: v.AddBOS && !strings.HasPrefix(text, t.bos), ParseSpecial: true}), v), nil
}

// setSampler says what the prompts are in tokens. A text of 0 tokens cannot be continued.
func (o *trainOptions) setSampler(m *model, v *vocab.Vocab, tok *tokenizer.Tokenizer, t *talk) error {
	if len(o.SamplePrompts) == 0 {
		return nil
	}
	files, err := m.generationSettings(v)
	if err != nil {
		return err
	}
	ends := files.ends
	if t.chats {
		ends = files.chatEnds(v)
	}
	s := &train.Sampler{
		Ends: func(token int32) bool { return slices.Contains(ends, token) },
		Decode: func(prompt, tokens []int32) string {
			d := tok.NewDecoder()
			for _, id := range prompt {
				d.Next(id)
			}
			var b strings.Builder
			for _, id := range tokens {
				b.WriteString(d.Next(id))
			}
			return b.String() + d.Flush()
		},
	}
	for i, p := range o.SamplePrompts {
		tokens, err := o.prompt(p, t, v, tok)
		if err != nil {
			return fmt.Errorf("prompt %d to be continued: %w", i+1, err)
		}
		if len(tokens) == 0 {
			return badUsage(fmt.Errorf("prompt %d to be continued is %q, which has no token", i+1, p))
		}
		s.Prompts = append(s.Prompts, tokens)
	}
	o.Sampler = s
	return nil
}

// perplexity says what a loss is as a perplexity.
func perplexity(loss float64) string {
	if p := math.Exp(loss); p < 1e6 {
		return fmt.Sprintf("perplexity %.2f", p)
	}
	return fmt.Sprintf("perplexity %.2e", math.Exp(loss))
}

// reportWatch shows what else there is to see of a step than its loss.
func (a *app) reportWatch(bar *bar, r train.Record, steps int) {
	at := fmt.Sprintf("step %d/%d", r.Step, steps)
	if r.EvalLoss != nil {
		line := fmt.Sprintf("%s  validation loss %.4f, %s", at, *r.EvalLoss, perplexity(*r.EvalLoss))
		if r.Best {
			line += ", the best so far"
		}
		bar.println(line)
	}
	for _, s := range r.Samples {
		bar.println(fmt.Sprintf("%s  sample  %s\u2502%s", at, printable(s.Prompt), printable(s.Text)))
	}
	for _, n := range r.Notes {
		bar.println(fmt.Sprintf("%s  warning: %s", at, n))
	}
}

// printable returns a text as one line without what a terminal would take for commands.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n':
			return '\u21b5'
		case r < ' ' || r >= 0x7f && r < 0xa0:
			return '\ufffd'
		}
		return r
	}, s)
}

// asked reports whether somebody has asked for a checkpoint, and takes note of it.
func (o *trainOutput) asked() bool {
	return os.Remove(filepath.Join(o.dir, saveName)) == nil
}

// bestDir returns the checkpoint of a step in the output directory, or beside the one
// that the run goes on from.
func (o *trainOptions) bestDir(step int) (string, error) {
	name := fmt.Sprint(checkpointName, step)
	dirs := []string{o.out}
	if o.resume != "" {
		dirs = append(dirs, o.resume, filepath.Dir(filepath.Clean(o.resume)))
	}
	for _, dir := range dirs {
		path := filepath.Join(dir, name)
		if _, err := os.Stat(filepath.Join(path, stateName)); err == nil {
			return path, nil
		}
	}
	return "", hint.Add(fmt.Errorf("%s: %w: the best checkpoint so far is of step %d, and is not there", o.out, fs.ErrNotExist, step),
		"leave out --load-best-model-at-end, or begin a run of its own")
}

// best opens the checkpoint that is to be the result, if it is not the last one.
func (o *trainOptions) best(s *train.State) (c *train.Checkpoint, close func() error, err error) {
	if !o.LoadBestModelAtEnd || s.BestStep == 0 || s.BestStep == s.Step {
		return nil, func() error { return nil }, nil
	}
	dir, err := o.bestDir(s.BestStep)
	if err != nil {
		return nil, nil, err
	}
	best, files, err := openCheckpoint(dir)
	if err != nil {
		return nil, nil, err
	}
	if best.State.BestStep != s.BestStep {
		return nil, nil, errors.Join(fmt.Errorf("%s: %w: its best step is %d, where %d was the best", dir, tensor.ErrMalformed, best.State.BestStep, s.BestStep), files.Close())
	}
	return &best, files.Close, nil
}

// watched is what a result says of how the run was watched.
type watched struct {
	// Best is the lowest loss on the validation data after a step, which BestStep is.
	// Loaded says that the result is of that step and not of the last one.
	Best     *float64 `json:"best_eval_loss,omitempty"`
	BestStep int      `json:"best_step,omitempty"`
	Loaded   bool     `json:"best_model_loaded,omitempty"`

	// Stopped is why the run ended before its last step.
	Stopped string `json:"stopped,omitempty"`

	// Warnings are the notes of all steps.
	Warnings []string `json:"warnings,omitempty"`
}

func watchedBy(o *trainOptions, s *train.State, stopped string, log []train.Record) watched {
	w := watched{Best: s.BestMetric, BestStep: s.BestStep, Loaded: o.LoadBestModelAtEnd && s.BestStep > 0 && s.BestStep != s.Step, Stopped: stopped}
	for _, r := range log {
		for _, n := range r.Notes {
			w.Warnings = append(w.Warnings, fmt.Sprintf("step %d: %s", r.Step, n))
		}
	}
	return w
}

// lines says it as text.
func (w *watched) lines() (list []string) {
	if w.Stopped != "" {
		list = append(list, w.Stopped)
	}
	switch {
	case w.Loaded:
		list = append(list, fmt.Sprintf("the result is that of step %d, with the lowest validation loss: %.4f, %s", w.BestStep, *w.Best, perplexity(*w.Best)))
	case w.Best != nil:
		list = append(list, fmt.Sprintf("the lowest validation loss was %.4f, %s, after step %d", *w.Best, perplexity(*w.Best), w.BestStep))
	}
	for _, n := range w.Warnings {
		list = append(list, "warning: "+n)
	}
	return list
}
