package main

import (
	"fmt"
	"strings"

	"github.com/spf13/pflag"

	"github.com/seed18967229/nibble/internal/hint"
)

// A message of a conversation.
type message struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

// templateFlags say how a prompt is made of a conversation.
type templateFlags struct {
	chat, plain  bool
	name, system string
}

func (o *templateFlags) flags(f *pflag.FlagSet) {
	f.StringVar(&o.name, "chat-template", "", "a template for the prompt: a file, or the name of one of the model's")
	f.StringVar(&o.system, "system", "", "the system message")
}

// wanted reports whether there is to be a template.
func (o *templateFlags) wanted() bool { return o.chat || o.name != "" || o.system != "" }

// conversation returns the messages that lead to an answer to a text.
func (o *templateFlags) conversation(text string) []message {
	var list []message
	if o.system != "" {
		list = append(list, message{"system", o.system})
	}
	return append(list, message{"user", text})
}

// A renderer makes a prompt of a conversation, at the end of which an answer is due.
type renderer func(messages []message) (string, error)

// template returns what makes prompts for the model.
func (w *writer) template(o *templateFlags) (renderer, error) {
	if o.plain {
		return plainText, nil
	}
	return nil, hint.Add(fmt.Errorf("%s: it has no chat template", w.model.Path), "give one with --chat-template FILE")
}

// plainText is a conversation without a template: its messages, a line each.
func plainText(messages []message) (string, error) {
	var b strings.Builder
	for _, m := range messages {
		b.WriteString(m.Content)
		b.WriteString("\n")
	}
	return b.String(), nil
}
