package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/seed18967229/nibble/internal/memory"
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/train/data/tokenizer"
	"github.com/seed18967229/nibble/train/engine"
)

// generateOptions are the flags of generate.
type generateOptions struct {
	model, adapter, prompt string
	maxTokens              int
	temperature            float64
	seed                   uint64
}

func (a *app) generateCommand() *cobra.Command {
	var o generateOptions
	cmd := &cobra.Command{
		Use:     "generate --model IN --prompt TEXT",
		Short:   "Continue a text",
		Example: "  nibble generate --model stories260K --prompt \"Once upon a time\" --max-tokens 60",
		Args:    exactArgs(0),
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.generate(cmd.Context(), &o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.model, "model", "", "the model")
	f.StringVar(&o.adapter, "adapter", "", "a PEFT adapter on top of it")
	f.StringVar(&o.prompt, "prompt", "", "the text to continue")
	f.IntVar(&o.maxTokens, "max-tokens", 100, "tokens to generate at most")
	f.Float64Var(&o.temperature, "temperature", 0, "0 takes the most likely token, 1 samples as the model says")
	f.Uint64Var(&o.seed, "seed", 0, "makes sampling repeatable")
	need(cmd, "model")
	return cmd
}

type generateResult struct {
	Prompt       string  `json:"prompt"`
	PromptTokens []int32 `json:"prompt_tokens"`
	Tokens       []int32 `json:"tokens"`
	Text         string  `json:"text"`
	Stopped      string  `json:"stopped"`
	PerSecond    float64 `json:"tokens_per_second"`
	PeakRSS      int64   `json:"peak_rss"`
}

// text prints nothing but the end of the line: the text has been shown as it
// was made.
func (r *generateResult) text(w io.Writer) { fmt.Fprintln(w) }

func (a *app) generate(ctx context.Context, o *generateOptions) error {
	if o.maxTokens < 0 || !(o.temperature >= 0) {
		return badUsage(fmt.Errorf("--max-tokens %d, --temperature %v: want 0 or more", o.maxTokens, o.temperature))
	}
	m, err := openModel(o.model)
	if err != nil {
		return err
	}
	defer m.Close()
	v, tok, err := m.tokenizer()
	if err != nil {
		return err
	}
	r := &generateResult{Prompt: o.prompt, PromptTokens: tok.EncodeWith(o.prompt, tokenizer.Options{BOS: v.AddBOS}), Tokens: []int32{}, Stopped: "length"}
	context := int(m.arch.MaxPositionEmbeddings)
	if len(r.PromptTokens) > context {
		return fmt.Errorf("%w: the prompt has %d tokens, the model's context is %d", tensor.ErrUnsupported, len(r.PromptTokens), context)
	}
	positions := min(context, len(r.PromptTokens)+max(0, o.maxTokens-1)) // the last token is not continued
	e, err := m.engine(o.adapter, positions, int64(a.memory), nil)
	if err != nil {
		return err
	}
	defer e.Close()

	show := io.Discard
	if !a.json {
		show = a.out
		fmt.Fprint(show, o.prompt)
	}
	dec := tok.NewDecoder()
	for _, id := range r.PromptTokens {
		dec.Next(id)
	}
	emit := func(text string) {
		r.Text += text
		fmt.Fprint(show, text)
	}
	start := time.Now()
	err = e.Generate(ctx, r.PromptTokens, engine.Sampling{Temperature: o.temperature, Seed: o.seed}, func(id int32) bool {
		if len(r.Tokens) == o.maxTokens {
			return false
		}
		if id == v.EOS {
			r.Stopped = "eos"
			return false
		}
		r.Tokens = append(r.Tokens, id)
		emit(dec.Next(id))
		return len(r.Tokens) < o.maxTokens
	})
	emit(dec.Flush())
	if err != nil {
		if errors.Is(err, ctx.Err()) {
			return err
		}
		return fmt.Errorf("%s: %w", o.model, err)
	}
	r.PerSecond = float64(len(r.Tokens)) / time.Since(start).Seconds()
	r.PeakRSS = memory.PeakRSS()
	return a.print(r)
}
