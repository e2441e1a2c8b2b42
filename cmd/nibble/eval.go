package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/memory"
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/train/data"
	"github.com/seed18967229/nibble/train/engine"
	trainmodel "github.com/seed18967229/nibble/train/model"
)

// evalOptions are the flags of eval.
type evalOptions struct {
	model, adapter, data string
	base                 string // to compare with, "" for nothing
	length               int
	batch                int
	rowFlags
	match matchOptions
}

func (a *app) evalCommand() *cobra.Command {
	var o evalOptions
	cmd := &cobra.Command{
		Use:   "eval --model IN --data PATH",
		Short: "Measure loss and perplexity on a text or data set",
		Long: `Measure the loss of a model, in nats per token, and its perplexity.

Of a text two figures are given. The plain one cuts it into windows of
--max-seq-length tokens, each begun with the bos token, and scores every other
token. The other follows llama-perplexity with -c --max-seq-length: the second
half of each window is scored. They are comparable with other programs' figures
and not with each other.

With --kl-base the model is compared with another of the same vocabulary, such as
the one that it was quantized from: how far its predictions diverge from the
base's (mean Kullback-Leibler divergence in nats, after llama-perplexity
--kl-divergence), how often both find the same token the most likely, and how far
the probability of the right token is off. Both models go through the same windows
at the same time. A text that has fewer than two windows is scored as a whole.

Of rows, which may be all that nibble train takes, every example is scored:
completions and the assistant's turns only, where there are prompts. Of a folder
the test data is taken, else valid, else train.

With --match the prompts of rows are continued instead, by the most likely token each
time, and the answer in the continuation is compared with that in the completion: of
gsm8k the number behind ####, of sql the statement whatever the white space in it, of
text all of it. Of a chat the last turn of the assistant is asked for. The share that
is equal is what such data sets are reported with; the loss on the completions is what
eval without --match gives.`,
		Example: `  nibble eval --model stories260K --adapter adapters --data shakespeare/valid.txt
  nibble eval --model stories260K-nf4 --kl-base stories260K --data shakespeare/valid.txt
  nibble eval --model Qwen3-0.6B --adapter adapters --data gsm8k/test.jsonl --match --show 3
  nibble eval --model Qwen3-0.6B --data wikisql --match --match-pattern sql --match-split "A: " --match-stop $'\n'`,
		Args: exactArgs(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.match.on {
				return a.evalMatch(cmd.Context(), &o)
			}
			if name := o.match.given(cmd.Flags()); name != "" {
				return badUsage(hint.Add(fmt.Errorf("--%s without --match", name), "add --match"))
			}
			return a.eval(cmd.Context(), &o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.model, "model", "", "the model")
	f.StringVar(&o.adapter, "adapter", "", "an adapter on top of it")
	f.StringVar(&o.base, "kl-base", "", "a model to compare the predictions with")
	f.StringVar(&o.data, "data", "", "text file, file of rows or folder")
	f.IntVar(&o.length, "max-seq-length", 512, "tokens of a window or example; lowered to the model's context")
	f.IntVar(&o.batch, "batch-size", 8, "windows or examples that go through the model at a time")
	o.rowFlags.flags(f)
	o.match.flags(f)
	need(cmd, "model", "data")
	return cmd
}

type evalResult struct {
	Model   string `json:"model"`
	Adapter string `json:"adapter,omitempty"`
	Data    string `json:"data"`

	Loss       float64 `json:"loss"`
	Perplexity float64 `json:"perplexity"`
	Tokens     int     `json:"tokens"`
	Examples   int     `json:"examples"`
	Truncated  int     `json:"truncated,omitempty"`
	Dropped    int     `json:"dropped,omitempty"`

	// Llama is the figure by llama-perplexity's rule, of a text that is long
	// enough for it.
	Llama *llamaResult `json:"llama_perplexity,omitempty"`

	// KL compares the model with a base, on the tokens of Llama if that is there.
	KL *klResult `json:"kl,omitempty"`

	Length  int     `json:"max_seq_length"`
	Seconds float64 `json:"seconds"`
	PeakRSS int64   `json:"peak_rss"`
}

type llamaResult struct {
	Loss       float64 `json:"loss"`
	Perplexity float64 `json:"perplexity"`
	Tokens     int     `json:"tokens"`
	Chunks     int     `json:"chunks"`
}

func (r *evalResult) text(w io.Writer) {
	name := r.Model
	if r.Adapter != "" {
		name += " + " + r.Adapter
	}
	fmt.Fprintf(w, "%s on %s: loss %.4f, perplexity %.4f\n", name, r.Data, r.Loss, r.Perplexity)
	fmt.Fprintf(w, "  plain             %s tokens in %d windows or examples of up to %d\n", thousands(int64(r.Tokens)), r.Examples, r.Length)
	if r.Truncated > 0 {
		fmt.Fprintf(w, "  cut               %d examples were longer\n", r.Truncated)
	}
	if r.Dropped > 0 {
		fmt.Fprintf(w, "  left out          %d examples that were longer\n", r.Dropped)
	}
	if l := r.Llama; l != nil {
		fmt.Fprintf(w, "  llama-perplexity  loss %.4f, perplexity %.4f over %d chunks of %d\n", l.Loss, l.Perplexity, l.Chunks, r.Length)
	}
	if r.KL != nil {
		r.KL.text(w)
	}
	fmt.Fprintf(w, "  %.1f s, peak memory %s\n", r.Seconds, memory.FormatSize(r.PeakRSS))
}

func (a *app) eval(ctx context.Context, o *evalOptions) error {
	if o.length < 2 || o.batch < 1 {
		return badUsage(fmt.Errorf("--max-seq-length %d, --batch-size %d: want at least 2 and 1", o.length, o.batch))
	}
	m, err := openModel(o.model)
	if err != nil {
		return err
	}
	defer m.Close()
	o.length = min(o.length, int(m.arch.MaxPositionEmbeddings))
	v, tok, err := m.tokenizer()
	if err != nil {
		return err
	}
	ev := &evaluation{a: a, batch: o.batch}
	budget := int64(a.memory)
	if o.base != "" {
		base, err := openBase(o.base, m, v)
		if err != nil {
			return err
		}
		defer base.Close()
		o.length = min(o.length, int(base.arch.MaxPositionEmbeddings))
		budget /= 2
		if ev.base, err = base.engine("", o.length, budget, nil); err != nil {
			return err
		}
		defer ev.base.Close()
	}
	opt, err := o.rowFlags.options(m, tok, o.length)
	if err != nil {
		return err
	}
	set, err := data.Open(o.data, opt)
	if err != nil {
		return err
	}
	defer set.Close()
	d := set.Train
	for _, x := range []*data.Dataset{set.Test, set.Valid} {
		if x != nil {
			d = x
			break
		}
	}
	if ev.engine, err = m.engine(o.adapter, o.length, budget, nil); err != nil {
		return err
	}
	defer ev.engine.Close()

	start := time.Now()
	r := &evalResult{Model: o.model, Adapter: o.adapter, Data: o.data, Length: o.length, Examples: d.Len(), Truncated: d.Stats().Truncated, Dropped: d.Stats().Dropped}
	passes := []pass{{what: "eval", n: d.Len(), add: func(b *trainmodel.Batch, i int) error {
		ex, err := d.Example(i)
		if err == nil {
			b.AddDocuments(ex.Tokens, ex.Loss, ex.Ends)
		}
		return err
	}}}
	if d.IsText() {
		text, err := readChunks(d.Path(), v, tok, o.length)
		if err != nil {
			return err
		}
		if text.enough(d.Path()) == nil {
			passes = append(passes, pass{what: llamaRule, n: text.len(), add: func(b *trainmodel.Batch, i int) error {
				b.Add(text.chunk(i), text.scored())
				return nil
			}})
		}
	}
	for i, p := range passes {
		var sum float64
		var labels int
		if last := i == len(passes)-1; last && ev.base != nil {
			div, err := ev.compare(ctx, p)
			if err != nil {
				return modelError(ctx, o.model, err)
			}
			sum, labels = div.Loss(), div.Labels()
			if labels > 0 {
				r.KL = newKL(o.base, p.what, div)
			}
		} else if sum, labels, err = ev.score(ctx, p); err != nil {
			return modelError(ctx, o.model, err)
		}
		if labels == 0 {
			return hint.Add(fmt.Errorf("%s: %w: there is no token to take loss on", o.data, tensor.ErrMalformed), "the data must have more than one token in an example")
		}
		loss, perplexity := sum/float64(labels), engine.Perplexity(sum, labels)
		if p.what == llamaRule {
			r.Llama = &llamaResult{Loss: loss, Perplexity: perplexity, Tokens: labels, Chunks: p.n}
		} else {
			r.Loss, r.Perplexity, r.Tokens = loss, perplexity, labels
		}
	}
	r.Seconds = time.Since(start).Seconds()
	r.PeakRSS = memory.PeakRSS()
	return a.print(r)
}

// llamaRule is the pass over a text that follows llama-perplexity.
const llamaRule = "llama-perplexity"

// pass is one way through the data: n examples, and how they become batches.
type pass struct {
	what string
	n    int
	add  func(b *trainmodel.Batch, i int) error
}

// evaluation is what passes are made with.
type evaluation struct {
	a            *app
	engine, base *engine.Engine // base may be nil
	batch        int
}

// score returns the sum of the losses of a pass and the number of labels.
func (ev *evaluation) score(ctx context.Context, p pass) (sum float64, labels int, err error) {
	err = ev.run(p, func(add func(b *trainmodel.Batch, i int) error) (err error) {
		sum, labels, err = engine.Evaluate(ctx, ev.engine, p.n, ev.batch, add)
		return err
	})
	return sum, labels, err
}

// compare compares the predictions of a pass with the base's.
func (ev *evaluation) compare(ctx context.Context, p pass) (d *engine.Divergence, err error) {
	err = ev.run(p, func(add func(b *trainmodel.Batch, i int) error) (err error) {
		d, err = engine.Compare(ctx, ev.engine, ev.base, p.n, ev.batch, add)
		return err
	})
	return d, err
}

// run shows how far f is.
func (ev *evaluation) run(p pass, f func(add func(b *trainmodel.Batch, i int) error) error) error {
	bar := ev.a.progress(p.what, int64(p.n), itemsUnit)
	defer bar.stop()
	return f(func(b *trainmodel.Batch, i int) error {
		bar.add(1)
		return p.add(b, i)
	})
}
