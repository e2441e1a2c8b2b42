package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/memory"
	"github.com/seed18967229/nibble/tensor"
)

// chatOptions are the flags of chat.
type chatOptions struct {
	model    string
	adapters []string
	context  int
	sampling samplingFlags
	template templateFlags
}

// usualContext is how many tokens a conversation may have where nothing is said about it.
const usualContext = 4096

func (a *app) chatCommand() *cobra.Command {
	var o chatOptions
	cmd := &cobra.Command{
		Use:   "chat --model IN",
		Short: "Talk with a model, and with adapters by turns",
		Long: `Talk with a model: each line is a message. So it is with a pipe, whose answers are
the only thing on standard output; with --json each is an object. A message of several
lines stands between lines of """.

The keys and values of the conversation stay in memory, and a message costs its own
tokens. --context bounds the conversation; when it is full the oldest messages but the
system's are dropped, and that is said. --adapter may be given again: /adapter NAME
changes to another one, which reads nothing of the model again and only the
conversation.

` + chatHelp + `
Ctrl-C stops an answer, which stays in the conversation; twice, it leaves. How tokens
are chosen is as in nibble generate.`,
		Example: `  nibble chat --model qwen2.5-0.5b-instruct
  nibble chat --model base-nf4 --adapter sql=runs/sql --adapter math=runs/math --system "Be brief."
  printf 'Hello\n/adapter none\nHello\n' | nibble chat --model base --adapter adapters`,
		Args: exactArgs(0),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.chat(cmd.Context(), &o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.model, "model", "", "the model")
	f.StringArrayVar(&o.adapters, "adapter", nil, "an adapter as [NAME=]DIR; may be given again, the first is in use")
	f.IntVar(&o.context, "context", 0, fmt.Sprintf("tokens of a conversation at most (default %d, or what the model or --memory allows)", usualContext))
	o.sampling.flags(f, 512)
	o.template.flags(f)
	f.BoolVar(&o.template.plain, "ignore-chat-template", false, "no template: messages are lines of a text that the model continues")
	need(cmd, "model")
	return cmd
}

// A conversation goes on from message to message.
type conversation struct {
	*writer
	app      *app
	o        *chatOptions
	render   renderer
	messages []message
	ends     []int32
	answers  uint64 // so far, for the seed

	interrupts chan os.Signal
	left       bool // by a command
}

func (a *app) chat(ctx context.Context, o *chatOptions) error {
	if o.context < 0 {
		return badUsage(fmt.Errorf("--context %d: want 1 or more", o.context))
	}
	if err := o.sampling.check(); err != nil {
		return err
	}
	var adapters []adapterFlag
	for _, text := range o.adapters {
		adapters = append(adapters, parseAdapter(text))
	}
	w, err := openWriter(o.model, adapters)
	if err != nil {
		return err
	}
	defer w.close()
	if err := o.sampling.take(w.settings); err != nil {
		return err
	}
	c := &conversation{writer: w, app: a, o: o, ends: w.settings.chatEnds(w.vocab)}
	if c.render, err = w.template(&o.template); err != nil {
		return err
	}
	most, asked := int(w.model.arch.MaxPositionEmbeddings), ""
	positions := min(usualContext, most)
	if o.context > 0 {
		positions, asked = o.context, "--context"
	}
	if positions > most {
		return fmt.Errorf("%s: %w: --context %d, the model's context is %d", o.model, tensor.ErrUnsupported, positions, most)
	}
	if err := w.start(positions, asked, int64(a.memory)); err != nil {
		return err
	}
	c.reset()
	c.say("%s, context %d tokens, %s", w.model.name(), w.context, o.sampling.describe(w.settings))
	if len(adapters) > 0 {
		c.say("adapter %s; /adapter changes it", w.adapter)
	}
	if w.beside != "" {
		c.say("chat template of %s", w.beside)
	}
	c.say("/help lists the commands")

	// From here on Ctrl-C is the conversation's.
	c.interrupts = make(chan os.Signal, 2)
	signal.Notify(c.interrupts, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(c.interrupts)
	return c.run(context.WithoutCancel(ctx), os.Stdin)
}

// say prints what is no answer.
func (c *conversation) say(format string, args ...any) {
	if !c.app.quiet {
		fmt.Fprintf(c.app.err, format+"\n", args...)
	}
}

// reset begins the conversation anew.
func (c *conversation) reset() {
	c.messages = nil
	if c.o.template.system != "" {
		c.messages = []message{{"system", c.o.template.system}}
	}
}

// maxLine bounds a message.
const maxLine = 1 << 20

// run reads messages until there are no more.
func (c *conversation) run(ctx context.Context, in io.Reader) error {
	prompting := terminal(os.Stdin) && !isNull(os.Stdin)
	lines := make(chan string)
	next := make(chan struct{})
	failed := make(chan error, 1)
	go func() {
		s := bufio.NewScanner(in)
		s.Buffer(nil, maxLine)
		for range next {
			if !s.Scan() {
				break
			}
			lines <- s.Text()
		}
		err := s.Err()
		if errors.Is(err, bufio.ErrTooLong) {
			err = fmt.Errorf("%w: a line of more than %s", tensor.ErrMalformed, memory.FormatSize(maxLine))
		}
		failed <- err
		close(lines)
	}()
	defer close(next)

	interrupted := false
	// line returns the next line.
	line := func(prompt string) (text string, more bool, err error) {
		if prompting {
			fmt.Fprint(c.app.err, prompt)
		}
		next <- struct{}{}
		for {
			select {
			case text, more = <-lines:
				if !more {
					return "", false, <-failed
				}
				return text, true, nil
			case s := <-c.interrupts:
				if interrupted || s != os.Interrupt {
					return "", false, context.Canceled
				}
				interrupted = true
				c.say("\n(Ctrl-C again, or /quit, leaves)")
			}
		}
	}
	for !c.left {
		text, more, err := line("> ")
		if err != nil || !more {
			return err
		}
		interrupted = false
		if text == `"""` {
			var list []string
			for {
				if text, more, err = line("... "); err != nil {
					return err
				}
				if c.left = !more; c.left || text == `"""` {
					break
				}
				list = append(list, text)
			}
			text = strings.Join(list, "\n")
		} else if strings.HasPrefix(text, "/") {
			err := c.command(ctx, text)
			switch {
			case errors.Is(err, errStopped):
				interrupted = true
			case errors.Is(err, context.Canceled):
				return err
			case err != nil:
				c.complain(err)
			}
			continue
		}
		if strings.TrimSpace(text) == "" {
			continue
		}
		c.messages = append(c.messages, message{"user", text})
		switch err := c.answer(ctx); {
		case errors.Is(err, errStopped):
			interrupted = true
		case errors.Is(err, errNoAnswer):
			c.complain(err)
			c.messages = c.messages[:len(c.messages)-1]
		case err != nil:
			return err
		}
	}
	return nil
}

// complain prints an error that is not the end.
func (c *conversation) complain(err error) {
	fmt.Fprintln(c.app.err, errorText(err))
	if h := hint.Of(err); h != "" {
		fmt.Fprintln(c.app.err, "hint:", h)
	}
}

var (
	// errStopped is an answer that was stopped by Ctrl-C.
	errStopped = errors.New("stopped")

	// errNoAnswer is a conversation that cannot be answered as it is.
	errNoAnswer = errors.New("no answer")
)

// chatAnswer is an answer as --json prints it.
type chatAnswer struct {
	message
	Adapter   string  `json:"adapter,omitempty"`
	Stopped   string  `json:"stopped"`
	Tokens    []int32 `json:"tokens"`
	Reused    int     `json:"reused_tokens"` // of the prompt
	Read      int     `json:"prompt_tokens"` // beside those
	Dropped   int     `json:"dropped_messages,omitempty"`
	Context   int     `json:"context_tokens"`
	PerSecond float64 `json:"tokens_per_second"`
}

// text prints the end of the line: the answer has been shown as it was made.
func (r *chatAnswer) text(w io.Writer) { fmt.Fprintln(w) }

// answer has the model answer the last message.
func (c *conversation) answer(ctx context.Context) error {
	prompt, dropped, err := c.prompt()
	if err != nil {
		return err
	}
	if dropped > 0 {
		c.say("(the context is full: the oldest %d messages are dropped)", dropped)
	}
	o := c.o.sampling
	o.Seed += c.answers
	c.answers++
	show := io.Discard
	if !c.app.json {
		show = c.app.out
	}
	x, signaled, err := c.listening(ctx, func(ctx context.Context) (*written, error) {
		return c.write(ctx, prompt, !c.o.template.plain, &o, c.ends, show)
	})
	if x != nil && len(x.Tokens) > 0 || err == nil {
		c.messages = append(c.messages, message{"assistant", x.Text})
	}
	if err != nil {
		return err
	}
	r := &chatAnswer{
		message: message{"assistant", x.Text}, Stopped: x.Stopped, Tokens: x.Tokens, Reused: x.turn.Reused, Read: x.turn.Read,
		Dropped: dropped, Context: len(prompt) + len(x.Tokens), PerSecond: x.perSecond(),
	}
	if c.adapter != noAdapter {
		r.Adapter = c.adapter
	}
	if err := c.app.print(r); err != nil {
		return err
	}
	note := ""
	if x.Stopped == stoppedLength {
		note = ", stopped at --max-tokens"
		if r.Context >= c.context {
			note = ", stopped at the end of the context"
		}
	}
	c.say("(%d tokens, %.1f/s; %d read in %.1fs, %d were there; context %d of %d%s)", len(x.Tokens), r.PerSecond, r.Read, x.turn.Reading.Seconds(), r.Reused, r.Context, c.context, note)
	switch signaled {
	case nil:
		return nil
	case os.Interrupt:
		return errStopped
	}
	return context.Canceled
}

// listening runs f until it is over or a signal, which it returns, ends it.
func (c *conversation) listening(ctx context.Context, f func(ctx context.Context) (*written, error)) (*written, os.Signal, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	over, heard := make(chan struct{}), make(chan os.Signal, 1)
	go func() {
		defer close(heard)
		select {
		case s := <-c.interrupts:
			heard <- s
			cancel()
		case <-over:
		}
	}()
	x, err := f(ctx)
	close(over)
	return x, <-heard, err
}

// prompt returns the tokens of the conversation. Where it leaves no room for an answer
// the oldest messages but the system's are dropped, up to one of the user's, and how many
// they were is returned.
func (c *conversation) prompt() (tokens []int32, dropped int, err error) {
	room := max(1, min(c.o.sampling.maxTokens, c.context/4))
	for {
		text, err := c.render(c.messages)
		if err != nil {
			return nil, dropped, fmt.Errorf("%w: %w", errNoAnswer, err)
		}
		if tokens = c.encode(text); len(tokens) == 0 {
			return nil, dropped, fmt.Errorf("%w: the prompt has no token", errNoAnswer)
		}
		if len(tokens)+room-1 <= c.context {
			return tokens, dropped, nil
		}
		from := 0
		if c.messages[0].Role == "system" {
			from = 1
		}
		to := from + 1
		for to < len(c.messages) && c.messages[to].Role != "user" {
			to++
		}
		if to >= len(c.messages) {
			if len(tokens) <= c.context {
				return tokens, dropped, nil // a short answer is better than none
			}
			return nil, dropped, hint.Add(fmt.Errorf("%w: the message makes a prompt of %d tokens, the context has %d", errNoAnswer, len(tokens), c.context), "give a larger --context, or a shorter message")
		}
		dropped += to - from
		c.messages = append(c.messages[:from:from], c.messages[to:]...)
	}
}
