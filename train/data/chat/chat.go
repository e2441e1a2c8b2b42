package chat

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/jinja"
	"github.com/seed18967229/nibble/tensor"
)

// Template is a chat template. It may be used by several goroutines.
type Template struct {
	source string
	tree   *jinja.Template
}

// Parse reads a template, as chat_template in tokenizer_config.json or tokenizer.chat_template in GGUF have it.
func Parse(source string) (*Template, error) {
	tree, err := jinja.Parse(source)
	if err != nil {
		return nil, describe(err)
	}
	return &Template{source, tree}, nil
}

// Marked tells whether the template itself says, with {% generation %}, what the assistant writes.
func (t *Template) Marked() bool { return t.tree.Marked() }

// Input is a conversation and what else a template may ask for. Values are what DecodeMessages and Decode give, or made of nil, bool, int, int64,
// float64, string, []any and map[string]any, whose keys come in the order role, content, then by name.
type Input struct {
	Messages []any
	// Tools and Documents: nil is none given, which a template can tell from an empty list.
	Tools, Documents []any
	// AddGenerationPrompt ends the text with what makes the assistant answer.
	AddGenerationPrompt bool
	// ContinueFinalMessage ends it within the last message, which is to be continued.
	ContinueFinalMessage bool
	// BOS and EOS are what templates know as bos_token and eos_token; empty: there is none. Special are others, such as pad_token.
	BOS, EOS string
	Special  map[string]string
	// Vars are further variables, such as enable_thinking.
	Vars map[string]any
	// Now is the time for templates that print it; the zero time is the clock's.
	Now time.Time
}

// Rendered is the text of a conversation.
type Rendered struct {
	Text string
	// Generated is what stands between {% generation %} and {% endgeneration %}: nil if the template has none.
	Generated []Span
}

// Span is a range of bytes of a text.
type Span struct{ From, To int }

// Render makes the text of a conversation.
func (t *Template) Render(in Input) (Rendered, error) {
	c, err := in.conversation()
	if err != nil {
		return Rendered{}, err
	}
	text, marked, _, err := t.render(c, c.messages, in.AddGenerationPrompt, in.ContinueFinalMessage)
	return Rendered{text, marked}, err
}

// conversation is an Input as templates see it.
type conversation struct {
	messages []jinja.Value // each a *jinja.Dict
	vars     *jinja.Dict
	now      time.Time
	size     int64 // bytes or so
	bos, eos string
}

func (in Input) conversation() (*conversation, error) {
	c := &conversation{vars: jinja.NewDict(), now: in.Now, bos: in.BOS, eos: in.EOS}
	if c.now.IsZero() {
		c.now = time.Now()
	}
	if len(in.Messages) == 0 {
		return nil, hint.Add(fmt.Errorf("%w: a conversation without messages", tensor.ErrMalformed), "give at least one message")
	}
	for i, m := range in.Messages {
		v, err := c.value(m, 0)
		if err != nil {
			return nil, fmt.Errorf("message %d: %w", i+1, err)
		}
		d, ok := v.(*jinja.Dict)
		if !ok {
			return nil, fmt.Errorf("%w: message %d is no object with role and content", tensor.ErrMalformed, i+1)
		}
		c.messages = append(c.messages, normalized(d))
	}
	set := func(name string, list []any) error {
		if list == nil {
			c.vars.Set(name, nil)
			return nil
		}
		v, err := c.value(list, 0)
		c.vars.Set(name, v)
		return err
	}
	if in.BOS != "" {
		c.vars.Set("bos_token", in.BOS)
	}
	if in.EOS != "" {
		c.vars.Set("eos_token", in.EOS)
	}
	for _, k := range slices.Sorted(maps.Keys(in.Special)) {
		c.vars.Set(k, in.Special[k])
	}
	for _, k := range slices.Sorted(maps.Keys(in.Vars)) {
		v, err := c.value(in.Vars[k], 0)
		if err != nil {
			return nil, fmt.Errorf("variable %s: %w", k, err)
		}
		c.vars.Set(k, v)
	}
	if err := set("tools", in.Tools); err != nil {
		return nil, fmt.Errorf("tools: %w", err)
	}
	if err := set("documents", in.Documents); err != nil {
		return nil, fmt.Errorf("documents: %w", err)
	}
	return c, nil
}

// reasoning are the names under which messages carry what was thought; the first is the one that templates read.
var reasoning = []string{"reasoning_content", "thinking", "reasoning"}

// normalized is a message as transformers hands it on: without keys that hold nothing, its reasoning under the names templates know.
func normalized(m *jinja.Dict) *jinja.Dict {
	out := jinja.NewDict()
	var thought jinja.Value
	for _, k := range reasoning {
		if v, ok := m.Get(k); ok && v != nil {
			thought = v
			break
		}
	}
	if thought != nil {
		out.Set("thinking", thought)
	}
	for k, v := range m.All {
		if v != nil {
			out.Set(k, v)
		}
	}
	if thought != nil {
		out.Set("reasoning_content", thought)
	}
	return out
}

// limits grow with a conversation: its text is copied, and each of its parts looked at, a number of times.
func (c *conversation) limits() jinja.Limits {
	d := jinja.DefaultLimits
	return jinja.Limits{Steps: d.Steps + 64*c.size, Memory: d.Memory + 64*c.size, Output: d.Output + 16*c.size, Depth: d.Depth}
}

// render makes the text of messages. marked is nil for a template without markers; usable tells that the markers could be placed.
func (t *Template) render(c *conversation, messages []jinja.Value, prompt, unfinished bool) (text string, marked []Span, usable bool, err error) {
	var final string
	if unfinished {
		if messages, final, err = t.unfinished(messages); err != nil {
			return "", nil, false, err
		}
	}
	vars := c.vars.Copy()
	vars.Set("messages", &jinja.List{Items: messages})
	vars.Set("add_generation_prompt", prompt)
	r, err := t.tree.Render(vars, jinja.Options{Now: c.now, Limits: c.limits()})
	if err != nil {
		return "", nil, false, describe(err)
	}
	if t.Marked() {
		marked = make([]Span, len(r.Marked))
		for i, s := range r.Marked {
			marked[i] = Span(s)
		}
	}
	if unfinished {
		r.Text, err = cut(r.Text, final)
	}
	return r.Text, marked, t.Marked() && !r.Scattered, err
}

// tag ends a message that is to be continued, to be found in the text.
const tag = "CONTINUE_FINAL_MESSAGE_TAG "

// unfinished tags the last message; final is its text.
func (t *Template) unfinished(messages []jinja.Value) (tagged []jinja.Value, final string, err error) {
	last := messages[len(messages)-1].(*jinja.Dict).Copy()
	content, ok := last.Get("content")
	if !ok {
		return nil, "", fmt.Errorf("%w: the last message has no content to continue", tensor.ErrMalformed)
	}
	if !strings.Contains(t.source, "content") {
		return nil, "", fmt.Errorf("%w: a chat template that does not print content cannot continue a message", tensor.ErrUnsupported)
	}
	switch v := content.(type) {
	case string:
		final = v
		last.Set("content", v+tag)
	case *jinja.List:
		parts := slices.Clone(v.Items)
		found := false
		for i := len(parts) - 1; i >= 0 && !found; i-- {
			part, ok := parts[i].(*jinja.Dict)
			if !ok {
				continue
			}
			text, ok := part.Get("text")
			if final, found = text.(string); ok && found {
				part = part.Copy()
				part.Set("text", final+tag)
				parts[i] = part
			}
		}
		if !found {
			return nil, "", fmt.Errorf("%w: the last message has no text to continue", tensor.ErrMalformed)
		}
		last.Set("content", &jinja.List{Items: parts})
	default:
		return nil, "", fmt.Errorf("%w: the last message has no text to continue", tensor.ErrMalformed)
	}
	return append(slices.Clone(messages[:len(messages)-1]), last), final, nil
}

// cut ends a text at the tag.
func cut(text, final string) (string, error) {
	at := strings.LastIndex(text, strings.TrimSpace(tag))
	if at < 0 || !strings.Contains(text, strings.TrimSpace(final)) {
		return "", hint.Add(fmt.Errorf("%w: the last message does not appear in the text as it is, so it cannot be continued", tensor.ErrUnsupported),
			"some templates leave out parts of a message, such as what was thought")
	}
	if strings.HasPrefix(text[at:], tag) {
		return text[:at], nil
	}
	return strings.TrimRight(text[:at], " \t\n\r\v\f"), nil
}

// describe says what an error of a template means for who gave the data.
func describe(err error) error {
	var e *jinja.Error
	if !errors.As(err, &e) {
		return err
	}
	switch e.Kind {
	case jinja.Syntax:
		return fmt.Errorf("%w: chat template: %w", tensor.ErrMalformed, e)
	case jinja.Limit:
		return fmt.Errorf("%w: chat template: %w", tensor.ErrUnsupported, e)
	case jinja.Raised:
		return fmt.Errorf("%w: the chat template refuses these messages: %w", tensor.ErrMalformed, e)
	}
	return fmt.Errorf("%w: the chat template fails on these messages: %w", tensor.ErrMalformed, e)
}
