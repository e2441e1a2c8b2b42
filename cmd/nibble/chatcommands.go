package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/seed18967229/nibble/internal/hint"
)

// chatHelp lists the commands of a chat.
const chatHelp = `Commands:
  /adapter NAME       change to another adapter; none is the model alone
  /reset              begin anew, with the same system message
  /system TEXT        begin anew with another system message, or with none
  /undo               take the last message and its answer back
  /regenerate         have the last message answered again
  /set NAME VALUE     change how tokens are chosen: /set temperature 0.7
  /save FILE          add the conversation to a .jsonl file that nibble train takes
  /help, /quit
`

// A chatCommand is what a line that begins with a slash does.
type chatCommand struct {
	name string
	run  func(c *conversation, ctx context.Context, rest string) error
}

func chatCommands() []chatCommand {
	return []chatCommand{
		{"adapter", (*conversation).changeAdapter},
		{"reset", func(c *conversation, _ context.Context, _ string) error {
			c.reset()
			c.say("(a new conversation)")
			return nil
		}},
		{"system", func(c *conversation, _ context.Context, rest string) error {
			c.o.template.system = rest
			c.reset()
			c.say("(a new conversation)")
			return nil
		}},
		{"undo", (*conversation).undo},
		{"regenerate", (*conversation).regenerate},
		{"set", (*conversation).change},
		{"save", (*conversation).save},
		{"help", func(c *conversation, _ context.Context, _ string) error {
			fmt.Fprint(c.app.err, chatHelp)
			return nil
		}},
		{"quit", (*conversation).leave},
		{"exit", (*conversation).leave},
		{"bye", (*conversation).leave},
	}
}

// command does what a line says that begins with a slash.
func (c *conversation) command(ctx context.Context, line string) error {
	name, rest, _ := strings.Cut(line[1:], " ")
	for _, x := range chatCommands() {
		if x.name == name {
			return x.run(c, ctx, strings.TrimSpace(rest))
		}
	}
	return hint.Add(fmt.Errorf("there is no command /%s", name), `/help lists them; a message that begins with a slash stands between lines of """`)
}

func (c *conversation) leave(context.Context, string) error {
	c.left = true
	return nil
}

func (c *conversation) changeAdapter(_ context.Context, name string) error {
	if name == "" {
		c.say("(adapter %s, of %s)", c.adapter, strings.Join(slices.Sorted(maps.Keys(c.adapters)), ", "))
		return nil
	}
	if err := c.use(name); err != nil {
		return err
	}
	was := c.beside
	switch render, err := c.template(&c.o.template); {
	case err != nil:
		// A model without a template is best compared with the one there was.
		c.beside = was
		c.say("(adapter %s; the chat template stays)", name)
	case c.beside != was:
		c.render = render
		of := c.beside
		if of == "" {
			of = c.model.name()
		}
		c.say("(adapter %s; chat template of %s)", name, of)
	default:
		c.say("(adapter %s)", name)
	}
	return nil
}

// undo takes the last message of the user and what follows it back.
func (c *conversation) undo(context.Context, string) error {
	for i, m := range slices.Backward(c.messages) {
		if m.Role == "user" {
			c.messages = c.messages[:i]
			c.say("(taken back: %s)", shorten(m.Content))
			return nil
		}
	}
	return errors.New("there is nothing to take back")
}

// shorten returns the beginning of a text.
func shorten(text string) string {
	const most = 60
	text = strings.Join(strings.Fields(text), " ")
	if r := []rune(text); len(r) > most {
		return string(r[:most]) + "..."
	}
	return text
}

// regenerate has the last message answered again.
func (c *conversation) regenerate(ctx context.Context, _ string) error {
	last := len(c.messages) - 1
	if last < 1 || c.messages[last].Role != "assistant" {
		return errors.New("there is no answer yet")
	}
	was := c.messages[last]
	c.messages = c.messages[:last]
	err := c.answer(ctx)
	if errors.Is(err, errNoAnswer) {
		c.messages = append(c.messages, was)
	}
	return err
}

// chatSettings are what /set changes.
var chatSettings = append(slices.Clone(samplingNames), "repetition-last-n", "seed", "max-tokens")

func (c *conversation) change(_ context.Context, rest string) error {
	name, value, _ := strings.Cut(rest, " ")
	o := &c.o.sampling
	if name = string(o.set.GetNormalizeFunc()(o.set, strings.ReplaceAll(name, "_", "-"))); !slices.Contains(chatSettings, name) {
		return hint.Add(fmt.Errorf("there is no setting %q", name), "there is %s", strings.Join(chatSettings, ", "))
	}
	if value = strings.TrimSpace(value); value != "" {
		was := o.set.Lookup(name).Value.String()
		err := o.set.Set(name, value)
		if err == nil {
			err = o.check()
		}
		if err != nil {
			return errors.Join(err, o.set.Set(name, was))
		}
		if name == "seed" {
			c.answers = 0
		}
	}
	c.say("(%s %s)", name, o.set.Lookup(name).Value)
	return nil
}

// save adds the conversation to a file, as one line.
func (c *conversation) save(_ context.Context, path string) (err error) {
	switch {
	case path == "":
		return errors.New("/save FILE: the file is missing")
	case len(c.messages) == 0:
		return errors.New("there is nothing to save yet")
	}
	line, err := json.Marshal(struct {
		Messages []message `json:"messages"`
	}{c.messages}, jsontext.AllowInvalidUTF8(true))
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o666)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() {
		return fmt.Errorf("%s: it is not a regular file", path)
	}
	if n := st.Size(); n > 0 {
		var last [1]byte
		if _, err := f.ReadAt(last[:], n-1); err != nil {
			return err
		}
		if last[0] != '\n' {
			line = append([]byte("\n"), line...)
		}
	}
	if _, err := f.Write(append(line, '\n')); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	c.say("(added to %s)", path)
	return nil
}
