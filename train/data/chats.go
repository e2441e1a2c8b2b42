package data

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/train/data/chat"
	"github.com/seed18967229/nibble/train/data/records"
)

// message is one turn of a chat, an object with a role and a content.
type message = jsontext.Value

// turn makes a message.
func turn(role, content string) message {
	return withRole(role, quote(content))
}

func withRole(role string, content jsontext.Value) message {
	return message(fmt.Sprintf(`{"role": %s, "content": %s}`, quote(role), content))
}

func quote(s string) jsontext.Value {
	b, err := jsontext.AppendQuote(nil, s)
	if err != nil { // it is not UTF-8, which no row is
		panic("data: " + err.Error())
	}
	return b
}

// roles are the names that the turns of ShareGPT and its kin have, and those that
// templates know.
var roles = map[string]string{
	"human": "user", "user": "user",
	"gpt": "assistant", "assistant": "assistant", "chatbot": "assistant", "model": "assistant", "bot": "assistant",
	"system": "system",
	"tool":   "tool", "observation": "tool", "function_response": "tool",
	"function_call": functionCall,
}

// functionCall is a turn of the assistant whose value is the call of a tool, or a list of
// them, as JSON.
const functionCall = "function_call"

const wantTurns = `a turn is {"role": "user", "content": "..."} or {"from": "human", "value": "..."}`

// messages reads the turns of a chat.
func messages(v jsontext.Value, key string) ([]message, error) {
	var list []jsontext.Value
	if err := json.Unmarshal(v, &list); err != nil || v.Kind() != '[' {
		return nil, hint.Add(fmt.Errorf("%w: %q is %s, want a list of turns", tensor.ErrMalformed, key, kindOf(v)), wantTurns)
	}
	for i, x := range list {
		m, err := readTurn(x)
		if err != nil {
			return nil, hint.Add(fmt.Errorf("%w: turn %d of %q: %w", tensor.ErrMalformed, i+1, key, err), wantTurns)
		}
		list[i] = m
	}
	if len(list) == 0 {
		return nil, hint.Add(fmt.Errorf("%w: %q has no turns", tensor.ErrMalformed, key), "remove the row")
	}
	return list, nil
}

// readTurn makes a message of a turn of any spelling. One that has a role is left as it
// is, with all that a template may look for in it.
func readTurn(v jsontext.Value) (message, error) {
	if v.Kind() != '{' {
		return nil, fmt.Errorf("%s, want an object", kindOf(v))
	}
	o, err := parseObject(v)
	if err != nil {
		return nil, err
	}
	if role := o["role"]; role != nil {
		if role.Kind() != '"' {
			return nil, fmt.Errorf("its role is %s", kindOf(role))
		}
		return v, nil
	}
	from, value := o["from"], o["value"]
	if from == nil || value == nil || from.Kind() != '"' {
		return nil, fmt.Errorf("neither a role nor a from and a value, but %s", quoted(o.names()))
	}
	name, err := jsontext.AppendUnquote(nil, from)
	if err != nil {
		return nil, err
	}
	role, ok := roles[strings.ToLower(string(name))]
	switch {
	case !ok:
		return nil, fmt.Errorf("a role that is not known: %s", records.Excerpt(name))
	case value.Kind() != '"':
		return nil, fmt.Errorf("its value is %s, want a text", kindOf(value))
	case role == functionCall:
		return callTurn(value)
	}
	return withRole(role, value), nil
}

// callTurn makes the message of a turn that calls tools.
func callTurn(quoted jsontext.Value) (message, error) {
	text, err := jsontext.AppendUnquote(nil, quoted)
	if err != nil {
		return nil, err
	}
	v := jsontext.Value(text)
	calls := []jsontext.Value{v}
	if !v.IsValid() || v.Kind() == '[' && json.Unmarshal(v, &calls) != nil {
		return nil, fmt.Errorf("the function call is not JSON: %s", records.Excerpt(v))
	}
	for i, c := range calls {
		if o, err := parseObject(c); err != nil || o["name"] == nil {
			return nil, fmt.Errorf("the function call has no name: %s", records.Excerpt(c))
		}
		calls[i] = jsontext.Value(fmt.Sprintf(`{"type": "function", "function": %s}`, c))
	}
	return message(fmt.Sprintf(`{"role": "assistant", "content": "", "tool_calls": %s}`, list(calls))), nil
}

func list(values []jsontext.Value) jsontext.Value {
	return slices.Concat([]byte("["), bytes.Join(asBytes(values), []byte(", ")), []byte("]"))
}

func asBytes(values []jsontext.Value) (out [][]byte) {
	for _, v := range values {
		out = append(out, v)
	}
	return out
}

func makeChat(o *Options, l *layout, row object) (document, error) {
	v, err := l.value(row, messagesAt)
	if err != nil {
		return document{}, err
	}
	turns, err := messages(v, l.keys[messagesAt])
	if err != nil {
		return document{}, err
	}
	return o.render(l, row, turns, chatSystemAt, chatToolsAt, 0)
}

// conversation is a prompt and a completion that are lists of turns. Those of the
// assistant in the completion are trained.
func (o *Options) conversation(l *layout, row object, prompt, completion jsontext.Value) (document, error) {
	turns, err := messages(prompt, l.keys[promptAt])
	if err != nil {
		return document{}, err
	}
	more, err := messages(completion, l.keys[completionAt])
	if err != nil {
		return document{}, err
	}
	return o.render(l, row, append(turns, more...), pairSystemAt, pairToolsAt, len(turns))
}

// render makes the text of a chat. The row may have a system prompt and tools beside the
// turns, at these parts of it; -1 is none. Turns before from are not trained.
func (o *Options) render(l *layout, row object, turns []message, systemAt, toolsAt, from int) (document, error) {
	if o.Template == nil && o.NoTemplate != nil {
		return document{}, o.NoTemplate
	}
	if o.Template == nil {
		return document{}, hint.Add(fmt.Errorf("%w: a chat, and the model has no chat template", tensor.ErrUnsupported), "give one with --chat-template, a file or a name such as chatml: that of the instruct model of the same family")
	}
	system, err := l.text(row, systemAt)
	if err != nil {
		return document{}, err
	}
	if system != "" {
		turns = append([]message{turn("system", system)}, turns...)
		from++
	}
	in := chat.Input{Vars: o.TemplateVars, Now: o.Now}
	if toolsAt >= 0 {
		if in.Tools, err = l.tools(row, toolsAt); err != nil {
			return document{}, err
		}
	}
	if in.Messages, err = chat.DecodeMessages(list(turns)); err != nil {
		return document{}, err
	}
	instructed := countRole(turns, "system") > 0
	v := o.Tokenizer.Vocab()
	in.BOS, in.EOS = o.Tokenizer.Piece(v.BOS), o.Tokenizer.Piece(v.EOS)
	if o.asking {
		return o.asked(in, turns)
	}
	if o.Mask == NoMask {
		r, err := o.Template.Render(in)
		return document{text: r.Text, rendered: true, system: instructed}, templateFailed(err)
	}
	text, spans, err := o.Template.Spans(in)
	if err != nil {
		return document{}, templateFailed(err)
	}
	if all := assistants(turns); len(spans) != all && (o.MaskHistory || from > 0) {
		return document{}, fmt.Errorf("%w: the chat template marks %d parts of the %d turns of the assistant", tensor.ErrUnsupported, len(spans), all)
	}
	keep := len(spans)
	switch {
	case o.MaskHistory:
		keep = min(keep, 1)
	case from > 0:
		keep = assistants(turns[from:])
	}
	return document{text: text, rendered: true, masked: true, system: instructed, trained: spans[len(spans)-keep:]}, nil
}

// templateFailed adds to an error of a template what there is to do, if it does not say.
func templateFailed(err error) error {
	if err == nil || hint.Of(err) != "" {
		return err
	}
	return hint.Add(err, "mend or remove the row, or give another template with --chat-template")
}

// assistants counts the turns that are the assistant's.
func assistants(turns []message) int { return countRole(turns, "assistant") }

// countRole counts the turns of a role.
func countRole(turns []message, role string) int {
	n := 0
	for _, t := range turns {
		var m struct {
			Role string `json:"role"`
		}
		if json.Unmarshal(t, &m) == nil && m.Role == role {
			n++
		}
	}
	return n
}

// tools returns the tools of a row: a list, or its JSON as a text.
func (l *layout) tools(row object, at int) ([]any, error) {
	v := row[l.keys[at]]
	if v == nil {
		return nil, nil
	}
	if v.Kind() == '"' {
		text, err := jsontext.AppendUnquote(nil, v)
		if err != nil {
			return nil, err
		}
		if v = bytes.TrimSpace(text); len(v) == 0 {
			return nil, nil
		}
	}
	if !v.IsValid() || v.Kind() != '[' {
		return nil, hint.Add(fmt.Errorf("%w: %q is %s, want a list of tools", tensor.ErrMalformed, l.keys[at], kindOf(v)), "remove it, or write a list in JSON")
	}
	return chat.DecodeMessages(v)
}
