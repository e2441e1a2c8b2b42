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
	length               int
	batch                int
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

Of a .jsonl data set every example is scored, completions only where there is a
prompt. Of a folder the test data is taken, else valid, else train.`,
		Example: "  nibble eval --model stories260K --adapter adapters --data shakespeare/valid.txt",
		Args:    exactArgs(0),
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.eval(cmd.Context(), &o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.model, "model", "", "the model")
	f.StringVar(&o.adapter, "adapter", "", "a PEFT adapter on top of it")
	f.StringVar(&o.data, "data", "", "text file, .jsonl file or folder")
	f.IntVar(&o.length, "max-seq-length", 512, "tokens of a window or example; lowered to the model's context")
	f.IntVar(&o.batch, "batch-size", 8, "windows or examples that go through the model at a time")
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

	// Llama is the figure by llama-perplexity's rule, of a text that is long
	// enough for it.
	Llama *llamaResult `json:"llama_perplexity,omitempty"`

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
	if l := r.Llama; l != nil {
		fmt.Fprintf(w, "  llama-perplexity  loss %.4f, perplexity %.4f over %d chunks of %d\n", l.Loss, l.Perplexity, l.Chunks, r.Length)
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
	set, err := data.Open(o.data, data.Options{Tokenizer: tok, MaxSeqLength: o.length})
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
	trained, err := attach(m.view, o.adapter)
	if err != nil {
		return err
	}
	e, err := engine.New(m.view, codecs, m.arch, trained, engine.Options{Slots: m.slots(int64(a.memory)), Positions: o.length})
	if err != nil {
		return fmt.Errorf("%s: %w", o.model, err)
	}
	defer e.Close()

	start := time.Now()
	r := &evalResult{Model: o.model, Adapter: o.adapter, Data: o.data, Length: o.length, Examples: d.Len()}
	score := func(what string, n int, add func(b *trainmodel.Batch, i int) error) (float64, int, error) {
		bar := a.progress(what, int64(n), itemsUnit)
		defer bar.stop()
		return engine.Evaluate(ctx, e, n, o.batch, func(b *trainmodel.Batch, i int) error {
			bar.add(1)
			return add(b, i)
		})
	}
	sum, labels, err := score("eval", d.Len(), func(b *trainmodel.Batch, i int) error {
		ex, err := d.Example(i)
		if err == nil {
			b.Add(ex.Tokens, ex.LossFrom)
		}
		return err
	})
	if err != nil {
		return err
	}
	if labels == 0 {
		return hint.Add(fmt.Errorf("%s: %w: there is no token to take loss on", o.data, tensor.ErrMalformed), "the data must have more than one token in an example")
	}
	r.Tokens, r.Loss, r.Perplexity = labels, sum/float64(labels), engine.Perplexity(sum, labels)
	r.Truncated = d.Stats().Truncated

	if d.IsText() {
		tokens, err := data.ReadText(d.Path(), tok)
		if err != nil {
			return err
		}
		// llama-perplexity (tools/perplexity/perplexity.cpp): the whole text
		// with bos in front is cut into chunks of n tokens, the first token of
		// each becomes bos, and the predictions made at n/2 to n-2 count.
		if v.AddBOS {
			tokens = append([]int32{v.BOS}, tokens...)
		}
		if n := o.length; len(tokens) >= 2*n {
			chunks := len(tokens) / n
			sum, labels, err := score("llama-perplexity", chunks, func(b *trainmodel.Batch, i int) error {
				chunk := append([]int32(nil), tokens[i*n:(i+1)*n]...)
				if v.AddBOS {
					chunk[0] = v.BOS
				}
				b.Add(chunk, n/2+1)
				return nil
			})
			if err != nil {
				return err
			}
			r.Llama = &llamaResult{Loss: sum / float64(labels), Perplexity: engine.Perplexity(sum, labels), Tokens: labels, Chunks: chunks}
		}
	}
	r.Seconds = time.Since(start).Seconds()
	r.PeakRSS = memory.PeakRSS()
	return a.print(r)
}
