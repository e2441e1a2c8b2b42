package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/spf13/pflag"

	"github.com/seed18967229/nibble/formats/vocab"
	"github.com/seed18967229/nibble/internal/fsx"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/train/data"
	"github.com/seed18967229/nibble/train/data/chat"
	"github.com/seed18967229/nibble/train/data/tokenizer"
)

// rowFlags say what the rows of a data set are and what of them is trained or scored.
type rowFlags struct {
	format, template, vars, overlong string
	fields                           data.Fields
	separator                        string
	apply, special, history          bool
	mask                             data.Mask
}

func (r *rowFlags) flags(f *pflag.FlagSet) {
	f.StringVar(&r.format, "data-format", "", "what rows are: "+strings.Join(data.Formats(), ", ")+" (default: what the first row of each file looks like)")
	f.StringVar(&r.fields.Text, "text-field", "", "key of the text in a row")
	f.StringVar(&r.fields.Prompt, "prompt-field", "", "key of the prompt in a row")
	f.StringVar(&r.fields.Completion, "completion-field", "", "key of the completion in a row")
	f.StringVar(&r.fields.Messages, "messages-field", "", "key of the turns of a chat in a row")
	f.StringVar(&r.fields.System, "system-field", "", "key of a system prompt that stands beside the turns")
	f.StringVar(&r.fields.Tools, "tools-field", "", "key of the tools that a template is told of")
	f.StringVar(&r.separator, "separator", "", `what stands between a prompt and its completion, as \n; part of the prompt`)
	f.StringVar(&r.template, "chat-template", "", "chat template that is used and not the model's: a file (Jinja), the name of another that the model has, or "+strings.Join(chat.Names(), ", "))
	f.StringVar(&r.vars, "chat-template-kwargs", "", `what the chat template is told besides, as JSON: {"enable_thinking": false}`)
	f.BoolVar(&r.apply, "apply-chat-template", false, "make a chat of prompt and completion, and of instructions; rows of messages are one")
	f.BoolVar(&r.special, "parse-special", true, "read the text of special tokens in rows as these tokens")
	f.StringVar(&r.overlong, "overlong", overlongs[0], "what becomes of rows with more than --max-seq-length tokens: "+strings.Join(overlongs, ", "))
	f.Var((*maskFlag)(&r.mask), "mask-prompt", "take loss on completions and the assistant's turns only; =false takes it on prompts too (default: where there are prompts)")
	f.Lookup("mask-prompt").NoOptDefVal = "true"
	f.BoolVar(&r.history, "mask-history", false, "take loss on the last turn of the assistant only")
}

// overlongs are the values of --overlong, by data.Overlong.
var overlongs = []string{data.Truncate: "truncate", data.Drop: "drop", data.Refuse: "error"}

// options returns what is asked for, for a model, whose tokenizer is tok.
func (r *rowFlags) options(m *model, tok *tokenizer.Tokenizer, length int) (data.Options, error) {
	o := data.Options{
		Tokenizer: tok, MaxSeqLength: length, Mask: r.mask, MaskHistory: r.history, Format: r.format, Fields: r.fields,
		ParseSpecial: r.special, ApplyTemplate: r.apply, Now: today(),
	}
	if r.format != "" && !slices.Contains(data.Formats(), r.format) {
		return o, badUsage(fmt.Errorf("--data-format is %q, want one of: %s", r.format, strings.Join(data.Formats(), ", ")))
	}
	at := slices.Index(overlongs, r.overlong)
	if at < 0 {
		return o, badUsage(fmt.Errorf("--overlong is %q, want one of: %s", r.overlong, strings.Join(overlongs, ", ")))
	}
	o.Overlong = data.Overlong(at)
	var err error
	if o.Separator, err = unescape(r.separator); err != nil {
		return o, badUsage(fmt.Errorf("--separator: %w", err))
	}
	if r.vars != "" {
		if err := json.Unmarshal([]byte(r.vars), &o.TemplateVars); err != nil {
			return o, badUsage(hint.Add(fmt.Errorf("--chat-template-kwargs: %w", err), `write an object in JSON, as {"enable_thinking": false}`))
		}
	}
	if o.Template, err = r.chatTemplate(m, tok.Vocab()); err != nil {
		if r.template != "" || r.apply {
			return o, err
		}
		o.NoTemplate = err // which only chats need
	}
	if r.apply && o.Template == nil {
		return o, badUsage(hint.Add(errors.New("--apply-chat-template, and the model has no chat template"), "give one with --chat-template, a file or a name such as chatml: that of the instruct model of the same family"))
	}
	return o, nil
}

// chatTemplate returns the template that is asked for, else the model's, nil if it has
// none.
func (r *rowFlags) chatTemplate(m *model, v *vocab.Vocab) (*chat.Template, error) {
	source, of := v.ChatTemplate, m.Path
	if r.template != "" {
		of = "--chat-template " + r.template
		at := slices.IndexFunc(v.ChatTemplates, func(t vocab.ChatTemplate) bool { return t.Name == r.template })
		named, ok := chat.Named(r.template)
		switch {
		case at >= 0:
			source = v.ChatTemplates[at].Template
		case ok:
			return named, nil
		default:
			b, err := os.ReadFile(r.template)
			if err != nil {
				return nil, hint.Add(fmt.Errorf("--chat-template: %w", err), "give a file, or one of: %s", strings.Join(templateNames(v), ", "))
			}
			source = string(b)
		}
	}
	if source == "" {
		return nil, nil
	}
	t, err := chat.Parse(source)
	if err != nil {
		return nil, hint.Add(fmt.Errorf("%s: %w", of, err), "give another with --chat-template")
	}
	return t, nil
}

// templateNames lists the templates that a model has beside the usual one, and those
// that nibble has.
func templateNames(v *vocab.Vocab) (names []string) {
	for _, t := range v.ChatTemplates {
		names = append(names, t.Name)
	}
	return append(names, chat.Names()...)
}

// unescape reads \n, \t and such as a shell does not.
func unescape(s string) (string, error) {
	if !strings.Contains(s, `\`) {
		return s, nil
	}
	return strconv.Unquote(`"` + strings.ReplaceAll(s, `"`, `\"`) + `"`)
}

// dataFlags say what train takes its examples from.
type dataFlags struct {
	rowFlags
	paths    []string
	valSplit float64
	packing  packingFlag
}

// noPacking and bfdPacking are the values of --packing.
const (
	noPacking  = "none"
	bfdPacking = "bfd"
)

func (d *dataFlags) flags(f *pflag.FlagSet) {
	f.StringArrayVar(&d.paths, "data", nil, "folder with train (and valid, test) as .jsonl, .json, .csv, .tsv, .parquet or .txt, or one such file; PATH:2 goes through it twice in an epoch; may be repeated")
	f.Float64Var(&d.valSplit, "val-split", 0, "take a validation set from the training data if there is none: a share below 1, or a number of examples")
	d.packing = noPacking
	f.Var(&d.packing, "packing", "none, or bfd: put several rows, which do not see each other, into examples of up to --max-seq-length tokens (best fit decreasing)")
	f.Lookup("packing").NoOptDefVal = bfdPacking
	d.rowFlags.flags(f)
}

// packingFlag is --packing, which others have as a switch.
type packingFlag string

func (p *packingFlag) String() string { return string(*p) }

func (p *packingFlag) Set(s string) error {
	if on, err := strconv.ParseBool(s); err == nil {
		s = map[bool]string{true: bfdPacking, false: noPacking}[on]
	}
	*p = packingFlag(s)
	return nil
}

func (p *packingFlag) Type() string { return "string" }

// sources are the data sets that are named.
func (d *dataFlags) sources() ([]data.Source, error) {
	var out []data.Source
	for _, s := range d.paths {
		src := data.Source{Path: s, Weight: 1}
		// A path that has a colon is one, whatever follows.
		if _, err := os.Stat(s); errors.Is(err, fs.ErrNotExist) && strings.Contains(s, ":") {
			w, err := parseWeighted(s)
			if err != nil {
				return nil, err
			}
			src = data.Source{Path: w.path, Weight: w.weight}
		}
		if src.Weight <= 0 {
			return nil, badUsage(fmt.Errorf("--data %s: a weight of %v, want a positive number", s, src.Weight))
		}
		out = append(out, src)
	}
	return out, nil
}

// openData opens the data of a training run, whose rows are read as opt says.
func (a *app) openData(o *trainOptions, opt data.Options) (*data.Set, error) {
	sources, err := o.sources()
	if err != nil {
		return nil, err
	}
	switch {
	case o.packing != noPacking && o.packing != bfdPacking:
		return nil, badUsage(fmt.Errorf("--packing is %q, want one of: %s, %s", o.packing, noPacking, bfdPacking))
	case o.valSplit < 0 || o.valSplit != o.valSplit:
		return nil, badUsage(fmt.Errorf("--val-split is %v, want a share below 1 or a number of examples", o.valSplit))
	}
	opt.Packing, opt.ValSplit, opt.Seed = o.packing == bfdPacking, o.valSplit, o.Seed
	if opt.ScratchDir = o.scratch; opt.ScratchDir == "" {
		dir := fsx.Existing(o.out)
		if st, err := os.Stat(dir); err == nil && st.IsDir() {
			opt.ScratchDir = dir
		}
	}
	if opt.Now, err = o.began(); err != nil {
		return nil, err
	}
	var files fileBar
	opt.Progress = files.show(a)
	defer files.stop()
	return data.OpenAll(sources, opt)
}

// today is the time for chat templates. It is the same all day, so that the same run is.
func today() time.Time {
	y, m, d := time.Now().Date()
	return time.Date(y, m, d, 0, 0, 0, 0, time.UTC)
}

// began returns what chat templates are told that the time is: today, or, where a run is
// resumed, what they were told when it began.
func (o *trainOptions) began() (time.Time, error) {
	if o.resume == "" {
		return today(), nil
	}
	c, files, err := openCheckpoint(o.resume)
	if err != nil {
		return time.Time{}, err
	}
	defer files.Close()
	for _, d := range c.State.Data {
		if !d.Now.IsZero() {
			return d.Now, nil
		}
	}
	return today(), nil
}

// fileBar shows how much of each file has been read.
type fileBar struct {
	bar  *bar
	path string
	read int64
}

func (r *fileBar) show(a *app) func(path string, read, size int64) {
	return func(path string, read, size int64) {
		if r.path != path {
			r.stop()
			r.bar, r.path, r.read = a.progress(filepath.Base(path), size, bytesUnit), path, 0
		}
		r.bar.add(read - r.read)
		r.read = read
	}
}

func (r *fileBar) stop() {
	if r.bar != nil {
		r.bar.stop()
	}
}

// describeData says what the data holds and what became of it.
func (a *app) describeData(set *data.Set, o *trainOptions) {
	for _, f := range set.Files {
		s := f.Stats
		line := fmt.Sprintf("%s (%s): %s examples, %s tokens, loss on %s", f.Path, f.What, thousands(int64(s.Examples)), thousands(s.Tokens), thousands(s.Labels))
		if s.Truncated > 0 {
			line += fmt.Sprintf("; %s examples lost %s tokens to --max-seq-length", thousands(int64(s.Truncated)), thousands(s.Cut))
		}
		if s.Dropped > 0 {
			line += fmt.Sprintf("; %s longer rows left out, with %s tokens", thousands(int64(s.Dropped)), thousands(s.Cut))
		}
		a.note("%s", line)
		if s.Tight > 0 {
			a.note(`  in %s of them the completion follows the prompt without a space or line end; --separator '\n' puts one there, --apply-chat-template makes chats of them`, thousands(int64(s.Tight)))
		}
	}
	if o.valSplit > 0 {
		if n := slices.ContainsFunc(set.Files, func(f *data.File) bool { return f.Part == "valid" }); n {
			a.note("--val-split: there is validation data already, nothing is split off")
		} else {
			a.note("%s examples are split off for validation, %s are left", thousands(int64(set.Valid.Len())), thousands(int64(set.Train.Stats().Examples)))
		}
	}
	if o.packing == bfdPacking {
		s := set.Train.Stats()
		a.note("packed into %s examples of up to %d tokens, %.1f %% full", thousands(int64(s.Examples)), o.MaxSeqLength, 100*float64(s.Tokens)/(float64(s.Examples)*float64(o.MaxSeqLength)))
	}
	if len(o.paths) > 1 || set.Train.Len() != set.Train.Stats().Examples {
		a.note("an epoch has %s examples", thousands(int64(set.Train.Len())))
	}
}
