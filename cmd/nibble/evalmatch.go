package main

import (
	"context"
	"fmt"
	"io"
	"iter"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/memory"
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/train/data"
)

// matchOptions are the flags of eval --match.
type matchOptions struct {
	on      bool
	pattern string // the name of a preset or a regular expression, "" to tell from the data
	split   string // what stands before the completion in a row that is one text
	stop    string
	tokens  int
	rows    int
	show    int
}

func (o *matchOptions) flags(f *pflag.FlagSet) {
	f.BoolVar(&o.on, "match", false, "count the prompts whose greedy continuation has the answer of the completion")
	f.StringVar(&o.pattern, "match-pattern", "", "what the answer is: gsm8k, sql, text or a regular expression (its first group, if it has one); told from the data if not given")
	f.StringVar(&o.split, "match-split", "", "in rows with one text, what the prompt ends with")
	f.StringVar(&o.stop, "match-stop", "", "text that ends a continuation, beside the eos token")
	f.IntVar(&o.tokens, "max-tokens", 256, "with --match, tokens of a continuation at most")
	f.IntVar(&o.rows, "max-rows", 0, "with --match, rows to look at; 0 is all")
	f.IntVar(&o.show, "show", 0, "with --match, rows to print with their answers")
}

// given returns the name of a flag that means nothing without --match.
func (o *matchOptions) given(f *pflag.FlagSet) string {
	for _, name := range []string{"match-pattern", "match-split", "match-stop", "max-tokens", "max-rows", "show"} {
		if f.Changed(name) {
			return name
		}
	}
	return ""
}

// answer takes the answer out of a text; false if there is none.
type answer func(text string) (string, bool)

// answers are the names that --match-pattern knows.
var answers = map[string]answer{
	// As GSM8K's own evaluation: the first number behind ####, without commas.
	"gsm8k": func() answer {
		re := regexp.MustCompile(`####\s*\$?(-?[0-9.,]+)`)
		return func(text string) (string, bool) {
			m := re.FindStringSubmatch(text)
			if m == nil {
				return "", false
			}
			s := strings.TrimRight(strings.ReplaceAll(m[1], ",", ""), ".")
			return s, s != ""
		}
	}(),
	"sql": func(text string) (string, bool) {
		return strings.TrimSpace(strings.TrimSuffix(strings.Join(strings.Fields(text), " "), ";")), true
	},
	"text": func(text string) (string, bool) { return strings.TrimSpace(text), true },
}

// extractor returns the way to take answers out, and its name. Without a pattern
// that is gsm8k if the first completion has such an answer, else text.
func (o *matchOptions) extractor(first string) (answer, string, error) {
	name := o.pattern
	if name == "" {
		name = "text"
		if _, ok := answers["gsm8k"](first); ok {
			name = "gsm8k"
		}
	}
	if f, ok := answers[name]; ok {
		return f, name, nil
	}
	re, err := regexp.Compile(name)
	if err != nil {
		return nil, "", badUsage(hint.Add(fmt.Errorf("--match-pattern: %w", err), "give gsm8k, sql, text or a regular expression"))
	}
	return func(text string) (string, bool) {
		m := re.FindStringSubmatch(text)
		if m == nil {
			return "", false
		}
		return strings.TrimSpace(m[min(1, len(m)-1)]), true
	}, name, nil
}

type matchResult struct {
	Model   string `json:"model"`
	Adapter string `json:"adapter,omitempty"`
	Data    string `json:"data"`
	Pattern string `json:"pattern"`

	Rows     int     `json:"rows"`
	Matches  int     `json:"matches"`
	Share    float64 `json:"share"`
	NoAnswer int     `json:"no_answer"`          // continuations without an answer
	Cut      int     `json:"cut"`                // those that max-tokens or the context ended
	TooLong  int     `json:"too_long,omitempty"` // prompts that the context has no room for

	Shown   []matchRow `json:"shown,omitempty"`
	Tokens  int        `json:"tokens"`
	Seconds float64    `json:"seconds"`
	PeakRSS int64      `json:"peak_rss"`
}

// matchRow is a row that is shown.
type matchRow struct {
	Line   int    `json:"line"`
	Prompt string `json:"prompt"`
	Text   string `json:"text"`
	Want   string `json:"want"`
	Got    string `json:"got"`
	Match  bool   `json:"match"`
}

func (r *matchResult) text(w io.Writer) {
	name := r.Model
	if r.Adapter != "" {
		name += " + " + r.Adapter
	}
	for _, row := range r.Shown {
		mark := "differs"
		if row.Match {
			mark = "matches"
		}
		fmt.Fprintf(w, "line %d %s\n  prompt  %s\n  text    %s\n  want    %s\n  got     %s\n", row.Line, mark, brief(row.Prompt), brief(row.Text), brief(row.Want), brief(row.Got))
	}
	fmt.Fprintf(w, "%s on %s: %d of %d match (%.2f %%), by %s\n", name, r.Data, r.Matches, r.Rows, 100*r.Share, r.Pattern)
	if r.NoAnswer > 0 {
		fmt.Fprintf(w, "  no answer         %d continuations\n", r.NoAnswer)
	}
	if r.Cut > 0 {
		fmt.Fprintf(w, "  cut               %d continuations did not end by themselves\n", r.Cut)
	}
	if r.TooLong > 0 {
		fmt.Fprintf(w, "  too long          %d prompts are as long as the model's context or longer\n", r.TooLong)
	}
	fmt.Fprintf(w, "  %s tokens in %.1f s, peak memory %s\n", thousands(int64(r.Tokens)), r.Seconds, memory.FormatSize(r.PeakRSS))
}

// brief is a text on one line, its end if it is long.
func brief(s string) string {
	const most = 160
	if cut := len(s) - most; cut > 0 {
		s = "..." + strings.ToValidUTF8(s[cut:], "")
	}
	return strings.TrimSuffix(strings.TrimPrefix(fmt.Sprintf("%q", s), `"`), `"`)
}

// evalMatch continues every prompt and compares the answers. It goes through the data
// twice, so that it is known to be sound, and how long it is, before the model is at work.
func (a *app) evalMatch(ctx context.Context, o *evalOptions) error {
	opt := &o.match
	if opt.tokens < 1 || opt.rows < 0 || opt.show < 0 {
		return badUsage(fmt.Errorf("--max-tokens %d, --max-rows %d, --show %d: want at least 1, 0 and 0", opt.tokens, opt.rows, opt.show))
	}
	if o.base != "" {
		return badUsage(fmt.Errorf("--match and --kl-base: the one compares texts, the other predictions; give one of them"))
	}
	var adapters []adapterFlag
	if o.adapter != "" {
		adapters = append(adapters, adapterFlag{nameOf(o.adapter), o.adapter})
	}
	w, err := openWriter(o.model, adapters)
	if err != nil {
		return err
	}
	defer w.close()
	most := int(w.model.arch.MaxPositionEmbeddings)
	rows, err := o.rowFlags.options(w.model, w.tokenizer, most)
	if err != nil {
		return err
	}
	r := &matchResult{Model: o.model, Adapter: o.adapter, Data: o.data}
	var extract answer
	longest := 0
	for p, err := range opt.prompts(o.data, rows) {
		if err != nil {
			return err
		}
		if extract == nil {
			if extract, r.Pattern, err = opt.extractor(p.Answer); err != nil {
				return err
			}
			r.Data = p.Path
		}
		if _, ok := extract(p.Answer); !ok {
			return hint.Add(fmt.Errorf("%s: %w: the completion has no answer by %s: %s", p.Where, tensor.ErrMalformed, r.Pattern, brief(p.Answer)),
				"say with --match-pattern what the answer is: gsm8k, sql, text or a regular expression")
		}
		if n := len(p.Tokens); n < most {
			longest = max(longest, n)
		}
		r.Rows++
	}
	if err := w.start(min(most, longest+opt.tokens), "--max-tokens", int64(a.memory)); err != nil {
		return err
	}

	start := time.Now()
	bar := a.progress("match", int64(r.Rows), itemsUnit)
	defer bar.stop()
	for p, err := range opt.prompts(o.data, rows) {
		if err != nil {
			return err
		}
		want, _ := extract(p.Answer)
		row := matchRow{Line: int(p.Line), Prompt: p.Text, Want: want}
		found := false
		if len(p.Tokens) >= w.context {
			r.TooLong++
		} else {
			x, err := w.continuation(ctx, p, opt)
			if err != nil {
				return modelError(ctx, o.model, err)
			}
			r.Tokens += len(x.Tokens)
			if x.Stopped == stoppedLength {
				r.Cut++
			}
			row.Text = x.Text
			if row.Got, found = extract(x.Text); !found {
				r.NoAnswer++
			}
		}
		if row.Match = found && row.Got == row.Want; row.Match {
			r.Matches++
		}
		if len(r.Shown) < opt.show {
			r.Shown = append(r.Shown, row)
		}
		bar.add(1)
	}
	bar.stop()
	r.Share = float64(r.Matches) / float64(r.Rows)
	r.Seconds = time.Since(start).Seconds()
	r.PeakRSS = memory.PeakRSS()
	return a.print(r)
}

// prompts are the rows that are looked at.
func (o *matchOptions) prompts(path string, rows data.Options) iter.Seq2[data.Prompt, error] {
	return func(yield func(data.Prompt, error) bool) {
		n := 0
		for p, err := range data.Prompts(path, rows, o.split) {
			if n++; !yield(p, err) || n == o.rows {
				return
			}
		}
	}
}

// continuation takes the most likely tokens after a prompt.
func (w *writer) continuation(ctx context.Context, p data.Prompt, o *matchOptions) (*written, error) {
	sampling := &samplingFlags{maxTokens: o.tokens}
	if o.stop != "" {
		sampling.stop = []string{o.stop}
	}
	ends := w.settings.ends
	if p.Chat {
		ends = w.settings.chatEnds(w.vocab)
	}
	x, err := w.write(ctx, p.Tokens, p.Chat, sampling, ends, io.Discard)
	x.Text = strings.TrimPrefix(x.Text, p.Rest)
	if err == nil && x.Stopped == stoppedInterrupted {
		err = context.Cause(ctx)
	}
	return x, err
}
