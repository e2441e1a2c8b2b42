package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/go-json-experiment/json"

	"github.com/seed18967229/nibble/formats/hf"
	"github.com/seed18967229/nibble/formats/vocab"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/safeio"
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/train/data/chat"
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
	f.StringVar(&o.name, "chat-template", "", "a template for the prompt: a file, or the name of one of the model's or of: "+strings.Join(chat.Names(), ", "))
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

// templateName is the file that transformers keeps a chat template in.
const templateName = "chat_template.jinja"

// maxTemplate bounds a file with a template.
const maxTemplate = 4 << 20

// template returns what makes prompts for the model. What a template is told of the time
// stays the same for all of them.
func (w *writer) template(o *templateFlags) (renderer, error) {
	if o.plain {
		if o.name != "" {
			return nil, badUsage(fmt.Errorf("both --chat-template and --ignore-chat-template"))
		}
		return plainText, nil
	}
	from, t, err := w.findTemplate(o.name)
	if err != nil {
		return nil, err
	}
	in := chat.Input{AddGenerationPrompt: true, Special: map[string]string{}, Now: time.Now()}
	for name, id := range map[string]int32{"bos_token": w.vocab.BOS, "eos_token": w.vocab.EOS, "unk_token": w.vocab.UNK, "sep_token": w.vocab.SEP, "pad_token": w.vocab.PAD} {
		if text := w.tokenizer.Piece(id); text != "" {
			in.Special[name] = text
		}
	}
	in.BOS, in.EOS = in.Special["bos_token"], in.Special["eos_token"]
	return func(messages []message) (string, error) {
		in := in
		for _, m := range messages {
			in.Messages = append(in.Messages, map[string]any{"role": m.Role, "content": m.Content})
		}
		r, err := t.Render(in)
		if err != nil {
			return "", hint.Add(fmt.Errorf("%s: %w", from, err), "give another with --chat-template")
		}
		return r.Text, nil
	}, nil
}

// besideAdapter returns the chat template that lies with the adapter in use, where the model
// has none or another: it is what the adapter was trained with.
func (w *writer) besideAdapter() (path, source string, err error) {
	dir, ok := w.paths[w.adapter]
	if !ok {
		return "", "", nil
	}
	if st, err := os.Stat(dir); err == nil && !st.IsDir() {
		dir = filepath.Dir(dir)
	}
	path = filepath.Join(dir, templateName)
	text, err := safeio.ReadFile(path, maxTemplate)
	if errors.Is(err, fs.ErrNotExist) {
		return "", "", nil
	}
	if err != nil {
		return "", "", err
	}
	if strings.TrimRight(string(text), "\n") == strings.TrimRight(w.vocab.ChatTemplate, "\n") {
		return "", "", nil
	}
	return path, string(text), nil
}

// findTemplate returns a template, and where it is from: one of the model's by its name,
// "" being its first, a file, or one of those that nibble knows.
func (w *writer) findTemplate(name string) (from string, t *chat.Template, err error) {
	from = w.model.Path + ": the chat template"
	source := ""
	w.beside = ""
	if name == "" {
		path, text, err := w.besideAdapter()
		if err != nil {
			return "", nil, err
		}
		if text != "" {
			if t, err = chat.Parse(text); err != nil {
				return "", nil, hint.Add(fmt.Errorf("%s: %w", path, err), "give another with --chat-template")
			}
			w.beside = path
			return path, t, nil
		}
	}
	var names []string
	if w.vocab.ChatTemplate != "" {
		names = []string{"default"}
	}
	for _, x := range w.vocab.ChatTemplates {
		if names = append(names, x.Name); x.Name == name {
			from, source = from+" "+name, x.Template
		}
	}
	switch {
	case source != "":
	case (name == "" || name == "default") && w.vocab.ChatTemplate != "":
		source = w.vocab.ChatTemplate
	case name == "" && len(names) > 0:
		return "", nil, badUsage(hint.Add(fmt.Errorf("%s: it has chat templates and none is the default", w.model.Path), "give --chat-template %s", strings.Join(names, " or ")))
	case name == "":
		return "", nil, hint.Add(fmt.Errorf("%s: %w: it has no chat template", w.model.Path, tensor.ErrUnsupported),
			"give one with --chat-template, a file or one of: %s; or do without: nibble chat --ignore-chat-template, nibble generate without --chat", strings.Join(chat.Names(), ", "))
	default:
		text, err := safeio.ReadFile(name, maxTemplate)
		if errors.Is(err, fs.ErrNotExist) {
			if t, known := chat.Named(name); known {
				return "the chat template " + name, t, nil
			}
			return "", nil, badUsage(hint.Add(fmt.Errorf("--chat-template %s: there is no such file, and no template by that name", name), "there are: %s", strings.Join(append(names, chat.Names()...), ", ")))
		}
		if err != nil {
			return "", nil, err
		}
		from, source = name, string(text)
	}
	if t, err = chat.Parse(source); err != nil {
		return "", nil, hint.Add(fmt.Errorf("%s: %w", from, err), "give another with --chat-template")
	}
	return from, t, nil
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

// templateSource returns the text of a template by its name: one of the model's, one of
// nibble's, or a file.
func (m *model) templateSource(name string) (string, error) {
	v, err := m.vocab()
	if err != nil {
		v = &vocab.Vocab{} // the model may do without one, and a file without both
	}
	t, err := (&rowFlags{template: name}).chatTemplate(m, v)
	if err != nil {
		return "", err
	}
	return t.Source(), nil
}

// withTemplate returns the files of a model with a chat template in place of theirs, as
// transformers 5 writes it and, for older programs, as transformers 4 did.
func withTemplate(files []hf.SideFile, template string) ([]hf.SideFile, error) {
	files = slices.DeleteFunc(slices.Clone(files), func(f hf.SideFile) bool {
		return f.Name == templateName || f.Name == "chat_template.json"
	})
	for i, f := range files {
		if f.Name != "tokenizer_config.json" {
			continue
		}
		text := f.Data
		if f.From != "" {
			var err error
			if text, err = safeio.ReadFile(f.From, maxTokenizerConfig); err != nil {
				return nil, err
			}
		}
		value, err := json.Marshal(template)
		if err != nil {
			return nil, err
		}
		if text, err = hf.Edit(text, []hf.Field{{Name: "chat_template", Value: value}}, nil); err != nil {
			return nil, fmt.Errorf("%s: %w", f.Name, err)
		}
		files[i] = hf.SideFile{Name: f.Name, Data: text}
	}
	return append(files, hf.SideFile{Name: templateName, Data: []byte(template)}), nil
}

// maxTokenizerConfig bounds a tokenizer_config.json.
const maxTokenizerConfig = 64 << 20
