package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/seed18967229/nibble/formats/vocab"
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/train"
	"github.com/seed18967229/nibble/train/data"
)

func (a *app) dataCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "data",
		Short: "Look at the data that a model is to be trained on",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.dataCheckCommand())
	return cmd
}

// dataCheckOptions are the flags of data check.
type dataCheckOptions struct {
	model, scratch string
	show, length   int
	dataFlags
}

func (a *app) dataCheckCommand() *cobra.Command {
	var o dataCheckOptions
	cmd := &cobra.Command{
		Use:   "check --data PATH --model IN",
		Short: "Show what a model would learn of a data set, and what is wrong with it",
		Long: `Show what a model would learn of a data set, and what is wrong with it, before hours
are spent on it. Nothing is trained and no weight is read.

The first examples are shown as the model sees them: what it learns to write in
green, what it only reads faint, special tokens reversed; without a terminal, or
with NO_COLOR set, what it learns in ⟦brackets⟧ and special tokens in ‹these›. Then
come how many tokens the examples have, and a list of what was looked at: each is
ok, or a warning, or a failure with what to do about it.

Exit codes: 0 nothing failed (there may be warnings), 3 something did.`,
		Example: "  nibble data check --data data/ --model stories260K\n  nibble data check --data rows.parquet --model model.gguf --max-seq-length 1024 --show 10",
		Args:    exactArgs(0),
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.dataCheck(cmd.Context(), &o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.model, "model", "", "the model that is to be trained")
	f.StringArrayVar(&o.paths, "data", nil, "folder or file as train takes it; may be repeated")
	f.IntVar(&o.show, "show", 3, "examples to show")
	f.IntVar(&o.length, "max-seq-length", train.DefaultConfig().MaxSeqLength, "tokens of an example; --overlong says what becomes of longer ones")
	f.StringVar(&o.scratch, "scratch-dir", "", "directory for the tokens (default: the system's)")
	o.rowFlags.flags(f)
	need(cmd, "data", "model")
	return cmd
}

// dataCheckResult is what data check prints.
type dataCheckResult struct {
	Model    string         `json:"model"`
	Files    []checkedFile  `json:"files"`
	Examples []shownExample `json:"examples"`
	Lengths  []lengthCount  `json:"lengths"`
	Checks   []finding      `json:"checks"`
	Failed   int            `json:"failed"`
	Warnings int            `json:"warnings"`

	colour bool
	total  int
}

// checkedFile is one file of the data set.
type checkedFile struct {
	Path      string `json:"path"`
	Part      string `json:"part"`
	What      string `json:"what"`
	Examples  int    `json:"examples"`
	Tokens    int64  `json:"tokens"`
	Trained   int64  `json:"trained"`
	Truncated int    `json:"truncated"`
	Dropped   int    `json:"dropped"`
	Cut       int64  `json:"cut_tokens"`
	Longest   int    `json:"longest"`
}

// lengthCount says how many examples have so many tokens, and how many so many that are
// trained.
type lengthCount struct {
	From    int   `json:"from"`
	To      int   `json:"to"`
	Tokens  int64 `json:"examples"`
	Trained int64 `json:"examples_by_trained"`
}

func (a *app) dataCheck(ctx context.Context, o *dataCheckOptions) error {
	if o.show < 0 {
		return badUsage(fmt.Errorf("--show is %d, want 0 or more", o.show))
	}
	if o.length < 2 {
		return badUsage(fmt.Errorf("--max-seq-length is %d, want 2 or more", o.length))
	}
	sources, err := o.sources()
	if err != nil {
		return err
	}
	for _, s := range sources {
		if _, err := os.Stat(s.Path); err != nil {
			return err
		}
	}
	m, err := openModel(o.model)
	if err != nil {
		return err
	}
	defer m.Close()
	if context := int(m.arch.MaxPositionEmbeddings); o.length > context {
		a.note("examples are cut at %d tokens, the model's context", context)
		o.length = context
	}
	d := &doctor{r: &dataCheckResult{Model: o.model, colour: terminal(a.out) && os.Getenv("NO_COLOR") == ""}}
	_, tok, err := m.tokenizer()
	if err != nil {
		return err
	}
	opt, err := o.rowFlags.options(m, tok, o.length)
	var usage *usageError
	switch {
	case err == nil:
	case errors.As(err, &usage), !isInputError(err):
		return err
	default:
		d.broken("chat template", err)
	}
	opt.ScratchDir = o.scratch
	d.o, d.vocab = opt, opt.Tokenizer.Vocab()

	if err := d.survey(ctx, sources); err != nil {
		return err
	}
	d.template()
	if d.readable() {
		var files fileBar
		d.o.Progress = files.show(a)
		set, err := data.OpenAll(sources, d.o)
		files.stop()
		if err != nil && !isInputError(err) {
			return err
		}
		if err == nil {
			defer set.Close()
		}
		if err := d.examples(ctx, set, err, o.show); err != nil {
			return err
		}
	}
	if err := a.print(d.r); err != nil {
		return err
	}
	if d.r.Failed > 0 {
		var names []string
		for _, c := range d.r.Checks {
			if c.Status == failed {
				names = append(names, c.Name)
			}
		}
		return fmt.Errorf("%s: %w: not ready to train on: %s", strings.Join(o.paths, ", "), tensor.ErrMalformed, strings.Join(names, ", "))
	}
	return nil
}

// isInputError reports whether an error is about what files hold.
func isInputError(err error) bool {
	return errors.Is(err, tensor.ErrMalformed) || errors.Is(err, tensor.ErrUnsupported)
}

// shownExample is an example as the model sees it.
type shownExample struct {
	Tokens  int       `json:"tokens"`
	Trained int       `json:"trained"`
	Text    []segment `json:"text"`
}

// segment is a stretch of text that is trained or not.
type segment struct {
	Text    string `json:"text"`
	Trained bool   `json:"trained"`
	Special bool   `json:"special,omitempty"`
}

// shownTokens is how many tokens of a long example are shown, of its beginning and of
// its end.
const shownTokens = 200

// show makes text of an example again, with what is trained of it. A character of
// several tokens belongs to the last of them.
func show(e data.Example, o *data.Options) shownExample {
	out := shownExample{Tokens: len(e.Tokens), Trained: e.Labels()}
	v := o.Tokenizer.Vocab()
	decode := o.Tokenizer.NewDecoder()
	add := func(s segment) {
		if s.Text == "" {
			return
		}
		if n := len(out.Text); n > 0 && !s.Special && !out.Text[n-1].Special && out.Text[n-1].Trained == s.Trained {
			out.Text[n-1].Text += s.Text
			return
		}
		out.Text = append(out.Text, s)
	}
	e.Documents(func(from, to int) {
		for j := from; j < to; j++ {
			trained := j > from && (e.Loss == nil || e.Loss[j])
			id := e.Tokens[j]
			text := decode.Next(id)
			if left := len(e.Tokens) - 2*shownTokens; left > 0 && j >= shownTokens && j < shownTokens+left {
				if j == shownTokens {
					add(segment{Text: fmt.Sprintf("[... %d tokens ...]", left), Special: true})
				}
				continue
			}
			add(segment{Text: text, Trained: trained})
			if v.Pieces[id].Type == vocab.Control {
				add(segment{Text: o.Tokenizer.Piece(id), Trained: trained, Special: true})
			}
		}
	})
	add(segment{Text: decode.Flush(), Trained: out.Trained > 0})
	return out
}

// colours are how a terminal shows what is trained and special.
const (
	colourTrained = "\x1b[32m"
	colourContext = "\x1b[2m"
	colourSpecial = "\x1b[7m"
	colourWarning = "\x1b[33m"
	colourFailed  = "\x1b[31m"
	colourOff     = "\x1b[0m"
)

// write shows the example. Nothing in it is obeyed by a terminal.
func (e shownExample) write(w io.Writer, colour bool) {
	open := false
	for _, s := range e.Text {
		text := visible(s.Text)
		if colour {
			code := colourContext
			if s.Trained {
				code = colourTrained
			}
			if s.Special {
				code += colourSpecial
			}
			fmt.Fprint(w, code, text, colourOff)
			continue
		}
		if s.Trained != open {
			fmt.Fprint(w, map[bool]string{true: "⟦", false: "⟧"}[s.Trained])
			open = s.Trained
		}
		if s.Special {
			text = "‹" + text + "›"
		}
		fmt.Fprint(w, text)
	}
	if open {
		fmt.Fprint(w, "⟧")
	}
	fmt.Fprintln(w)
}

// visible replaces what a terminal would obey.
func visible(s string) string {
	return strings.Map(func(r rune) rune {
		if r != '\n' && r != '\t' && !unicode.IsPrint(r) {
			return utf8.RuneError
		}
		return r
	}, s)
}

func (r *dataCheckResult) text(w io.Writer) {
	for i, e := range r.Examples {
		fmt.Fprintf(w, "example %d of %s: %s tokens, %s trained\n", i+1, thousands(int64(r.total)), thousands(int64(e.Tokens)), thousands(int64(e.Trained)))
		e.write(w, r.colour)
		fmt.Fprintln(w)
	}
	for _, f := range r.Files {
		fmt.Fprintf(w, "%s (%s)\n  %s\n", visible(f.Path), f.Part, visible(f.What))
		fmt.Fprintf(w, "  %s examples, %s tokens, %s trained; %s cut short, %s left out; longest %s\n", thousands(int64(f.Examples)), thousands(f.Tokens),
			thousands(f.Trained), thousands(int64(f.Truncated)), thousands(int64(f.Dropped)), thousands(int64(f.Longest)))
	}
	if len(r.Lengths) > 0 {
		r.histogram(w)
	}
	if len(r.Files) > 0 {
		fmt.Fprintln(w)
	}
	for _, c := range r.Checks {
		c.write(w, r.colour)
	}
}

// histogram draws how many tokens the training examples have, and how many of them are
// trained.
func (r *dataCheckResult) histogram(w io.Writer) {
	const width = 24
	most := int64(1)
	for _, l := range r.Lengths {
		most = max(most, l.Tokens, l.Trained)
	}
	fmt.Fprintf(w, "\n%17s  %-*s  %s\n", "tokens", width+8, "examples of that length", "examples with so many trained")
	for _, l := range r.Lengths {
		fmt.Fprintf(w, "%17s  %-*s %7s  %-*s %7s\n", fmt.Sprintf("%d..%d", l.From, l.To), width, textBar(l.Tokens, most, width), thousands(l.Tokens),
			width, textBar(l.Trained, most, width), thousands(l.Trained))
	}
}

// textBar draws n of most as a bar of up to width characters, in eighths.
func textBar(n, most int64, width int) string {
	eighths := int(n * int64(8*width) / most)
	if n > 0 {
		eighths = max(1, eighths)
	}
	bar := strings.Repeat("█", eighths/8)
	if rest := eighths % 8; rest > 0 {
		bar += string([]rune("▏▎▍▌▋▊▉")[rest-1])
	}
	return bar
}

// counts are how many examples have how many tokens, by powers of two.
type counts map[int]*lengthCount

func (c counts) bucket(n int) *lengthCount {
	to := 16
	for to < n {
		to *= 2
	}
	from := to/2 + 1
	if to == 16 {
		from = 0
	}
	if c[to] == nil {
		c[to] = &lengthCount{From: from, To: to}
	}
	return c[to]
}

func (c counts) list() []lengthCount {
	var out []lengthCount
	for _, l := range c {
		out = append(out, *l)
	}
	slices.SortFunc(out, func(a, b lengthCount) int { return cmp.Compare(a.To, b.To) })
	return out
}
