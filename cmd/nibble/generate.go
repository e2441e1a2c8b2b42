package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/memory"
	"github.com/seed18967229/nibble/internal/safeio"
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/train/data/tokenizer"
)

// generateOptions are the flags of generate.
type generateOptions struct {
	model, adapter     string
	prompt, promptFile string
	samples            int
	sampling           samplingFlags
	template           templateFlags
}

func (a *app) generateCommand() *cobra.Command {
	var o generateOptions
	cmd := &cobra.Command{
		Use:   "generate --model IN --prompt TEXT",
		Short: "Continue a text, or answer it with --chat",
		Long: `Continue a text: of --prompt, of a file, or of standard input.

The text is taken as it is. With --chat it is a user's message, which the model's
chat template makes a prompt of (mlx_lm.generate does that without being asked, and
has --ignore-chat-template for what is done here).

How tokens are chosen is what generation_config.json, or a .gguf file, says, unless
flags say otherwise; it is printed. Where it says nothing the most likely token is
taken. The order is transformers': repetition penalty, temperature, top-k, top-p,
min-p (llama.cpp has the temperature last).

It ends at the tokens that the model's files name for that, with --chat also at those
that templates end a message with. Ctrl-C ends it, too, with what there is.`,
		Example: `  nibble generate --model stories260K --prompt "Once upon a time" --max-tokens 60
  nibble generate --model qwen2.5-0.5b-instruct --chat --system "Be brief." --prompt "Why is the sky blue?"
  nibble generate --model base.gguf --adapter adapters --prompt-file prompt.txt --temperature 0.7 --top-p 0.9 --num-samples 3`,
		Args: exactArgs(0),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.generate(cmd.Context(), cmd, &o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.model, "model", "", "the model")
	f.StringVar(&o.adapter, "adapter", "", "an adapter on top of it")
	f.StringVar(&o.prompt, "prompt", "", "the text to continue")
	f.StringVar(&o.promptFile, "prompt-file", "", "the file that it is in, - for standard input")
	f.IntVar(&o.samples, "num-samples", 1, "continue it so many times, each with the next seed")
	o.sampling.flags(f, 100)
	o.template.flags(f)
	f.BoolVar(&o.template.chat, "chat", false, "make a prompt of the text by the model's chat template")
	need(cmd, "model")
	return cmd
}

type generateResult struct {
	Prompt       string  `json:"prompt"`
	PromptTokens []int32 `json:"prompt_tokens"`
	Tokens       []int32 `json:"tokens"`
	Text         string  `json:"text"`
	Stopped      string  `json:"stopped"`

	// Samples are all, where there is more than one.
	Samples []*written `json:"samples,omitempty"`

	Sampling  string  `json:"sampling"`
	PerSecond float64 `json:"tokens_per_second"`
	Reading   float64 `json:"prompt_seconds"`
	PeakRSS   int64   `json:"peak_rss"`
}

// text prints nothing but the end of the line: the text has been shown as it
// was made.
func (r *generateResult) text(w io.Writer) { fmt.Fprintln(w) }

func (a *app) generate(ctx context.Context, cmd *cobra.Command, o *generateOptions) error {
	if o.samples < 1 {
		return badUsage(fmt.Errorf("--num-samples %d: want 1 or more", o.samples))
	}
	if err := o.sampling.check(); err != nil {
		return err
	}
	text, err := o.text(cmd)
	if err != nil {
		return err
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
	if err := o.sampling.take(w.settings); err != nil {
		return err
	}
	r := &generateResult{Prompt: text, Sampling: o.sampling.describe(w.settings)}
	ends := w.settings.ends
	if o.template.wanted() {
		render, err := w.template(&o.template)
		if err != nil {
			return err
		}
		if w.beside != "" && !a.quiet {
			fmt.Fprintf(a.err, "chat template of %s\n", w.beside)
		}
		if r.Prompt, err = render(o.template.conversation(text)); err != nil {
			return err
		}
		r.PromptTokens, ends = w.encode(r.Prompt), w.settings.chatEnds(w.vocab)
	} else {
		r.PromptTokens = w.tokenizer.EncodeWith(text, tokenizer.Options{BOS: w.vocab.AddBOS})
	}
	most := int(w.model.arch.MaxPositionEmbeddings)
	if len(r.PromptTokens) > most {
		return fmt.Errorf("%w: the prompt has %d tokens, the model's context is %d", tensor.ErrUnsupported, len(r.PromptTokens), most)
	}
	positions := min(most, len(r.PromptTokens)+max(0, o.sampling.maxTokens-1)) // the last token is not continued
	if err := w.start(max(1, positions), "--max-tokens", int64(a.memory)); err != nil {
		return err
	}
	if r.Sampling != likeliest && !a.quiet {
		fmt.Fprintln(a.err, r.Sampling)
	}
	return a.writeSamples(ctx, w, o, r, ends)
}

func (a *app) writeSamples(ctx context.Context, w *writer, o *generateOptions, r *generateResult, ends []int32) error {
	show := io.Discard
	if !a.json {
		show = a.out
	}
	var last *written
	for i := range o.samples {
		if i > 0 {
			fmt.Fprint(show, "\n\n")
		}
		if !o.template.wanted() {
			fmt.Fprint(show, r.Prompt)
		}
		x, err := w.write(ctx, r.PromptTokens, o.template.wanted(), &o.sampling, ends, show)
		if err != nil {
			return err
		}
		if i == 0 {
			r.Tokens, r.Text, r.Stopped = x.Tokens, x.Text, x.Stopped
			r.Reading = x.turn.Reading.Seconds()
		}
		if o.samples > 1 {
			r.Samples = append(r.Samples, x)
		}
		r.PerSecond = x.perSecond()
		if last = x; x.Stopped == stoppedInterrupted {
			break
		}
		o.sampling.Seed++
	}
	r.PeakRSS = memory.PeakRSS()
	if err := a.print(r); err != nil || last.Stopped != stoppedInterrupted {
		return err
	}
	return context.Cause(ctx)
}

// maxPrompt bounds what is read of a file with a prompt.
const maxPrompt = 64 << 20

// text returns the text to continue.
func (o *generateOptions) text(cmd *cobra.Command) (string, error) {
	given := cmd.Flags().Changed("prompt")
	switch {
	case given && o.promptFile != "":
		return "", badUsage(fmt.Errorf("both --prompt and --prompt-file"))
	case given:
		return o.prompt, nil
	case o.promptFile != "" && o.promptFile != "-":
		text, err := safeio.ReadFile(o.promptFile, maxPrompt)
		if err != nil && errors.Is(err, safeio.ErrRefused) {
			return "", badUsage(err)
		}
		return string(text), err
	case o.promptFile == "" && terminal(os.Stdin) && !isNull(os.Stdin):
		return "", badUsage(hint.Add(fmt.Errorf("--prompt is missing"), "%s --help has an example", cmd.CommandPath()))
	}
	text, err := io.ReadAll(io.LimitReader(os.Stdin, maxPrompt+1))
	if err == nil && len(text) > maxPrompt {
		err = badUsage(fmt.Errorf("the prompt has more than %s", memory.FormatSize(maxPrompt)))
	}
	// The line's end is the shell's.
	return strings.TrimSuffix(string(text), "\n"), err
}

// isNull reports whether a file is the null device, which looks like a terminal.
func isNull(f *os.File) bool {
	st, err := f.Stat()
	if err != nil {
		return false
	}
	null, err := os.Stat(os.DevNull)
	return err == nil && os.SameFile(st, null)
}
