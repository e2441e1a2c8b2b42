package data

import (
	"fmt"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/train/data/records"
)

// Formats are the layouts of rows that Options.Format can ask for.
func Formats() []string {
	var out []string
	for _, k := range kinds {
		out = append(out, k.name)
	}
	return out
}

// shapes is what a row must look like.
const shapes = `want {"text"}, {"prompt", "completion"}, {"messages": [{"role", "content"}]}, {"conversations": [{"from", "value"}]} or {"instruction", "input", "output"}; ` +
	`other keys are named by --text-field, --prompt-field and --completion-field, or --messages-field`

// Fields name the keys of rows, "" for those that are usual.
type Fields struct {
	Text, Prompt, Completion, Messages, System, Tools string
}

// layout says under which keys the rows of a file have what.
type layout struct {
	*kind
	keys []string // by the role of a key in the kind; "" for one that there is not
	seen []string // the keys of the first row
}

// kind is one way in which rows are laid out.
type kind struct {
	name string

	// roles are the parts of a row, the first need of them needed.
	roles []string
	need  int

	// usual are the keys that a part may have, by role. Of those that are needed the
	// same number belongs together: prompt with completion, question with answer.
	usual [][]string

	make func(o *Options, l *layout, row object) (document, error)
}

// The parts of rows by their place in kind.roles.
const (
	textAt       = 0
	promptAt     = 0
	completionAt = 1
	pairSystemAt = 2
	pairToolsAt  = 3

	instructionAt = 0
	outputAt      = 1
	inputAt       = 2
	systemAt      = 3
	historyAt     = 4

	messagesAt   = 0
	chatSystemAt = 1
	chatToolsAt  = 2
)

// The names of kinds.
const (
	textKind   = "text"
	pairKind   = "pair"
	alpacaKind = "alpaca"
	chatKind   = "chat"
)

const noPrompt = `leave --mask-prompt out, or use rows with "prompt" and "completion"`

// kinds are all of them.
var kinds = []*kind{
	{textKind, []string{"text"}, 1, [][]string{{"text"}}, makeText},
	{pairKind, []string{"prompt", "completion", "system", "tools"}, 2, [][]string{
		{"prompt", "question", "prompt", "input"}, {"completion", "answer", "response", "output"}, {"system"}, {"tools"},
	}, makePair},
	{alpacaKind, []string{"instruction", "output", "input", "system", "history"}, 2, [][]string{
		{"instruction", "instruction"}, {"output", "response"}, {"input", "context"}, {"system"}, {"history"},
	}, makeAlpaca},
	{chatKind, []string{"messages", "system", "tools"}, 1, [][]string{{"messages", "conversations", "conversation"}, {"system"}, {"tools"}}, makeChat},
}

// object is a row.
type object map[string]jsontext.Value

// parseObject reads a row, which is one JSON object. What is null is as if it were not
// there.
func parseObject(row jsontext.Value) (object, error) {
	o := object{}
	if err := json.Unmarshal(row, &o); err != nil {
		return nil, fmt.Errorf("%w: not JSON: %v: %s", tensor.ErrMalformed, err, records.Excerpt(row))
	}
	for key, v := range o {
		if v.Kind() == 'n' {
			delete(o, key)
		}
	}
	return o, nil
}

// names returns the keys of a row in order.
func (o object) names() []string {
	var names []string
	for name := range o {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// quoted lists keys, not too many of them.
func quoted(names []string) string {
	const most = 5
	if len(names) == 0 {
		return "nothing"
	}
	var out []string
	for _, n := range names[:min(len(names), most)] {
		out = append(out, fmt.Sprintf("%q", records.Excerpt([]byte(n))))
	}
	if len(names) > most {
		out = append(out, "...")
	}
	return strings.Join(out, ", ")
}

// describe says what is made of the keys, for its reader to see that it is meant.
func (l *layout) describe() string {
	used := map[string]bool{}
	var parts []string
	for i, key := range l.keys {
		if key == "" || !slices.Contains(l.seen, key) && i >= l.need {
			continue
		}
		used[key] = true
		part := fmt.Sprintf("%q", key)
		if key != l.roles[i] {
			part = fmt.Sprintf("%s from %q", l.roles[i], key)
		}
		parts = append(parts, part)
	}
	var rest []string
	for _, key := range l.seen {
		if !used[key] {
			rest = append(rest, key)
		}
	}
	out := l.name + " rows: " + strings.Join(parts, ", ")
	if len(rest) > 0 {
		out += "; not used: " + quoted(rest)
	}
	return out
}

// wanted says what every row of the file must have.
func (l *layout) wanted() string {
	var keys []string
	for _, k := range l.keys[:l.need] {
		keys = append(keys, fmt.Sprintf("%q", k))
	}
	return "every row of a file must have what its first row has: " + strings.Join(keys, " and ")
}

// detect tells the layout of a file by its first row.
func (o *Options) detect(row object) (*layout, error) {
	if l, err := o.named(); l != nil || err != nil {
		if l != nil {
			l.seen = row.names()
		}
		return l, err
	}
	var found []*layout
	for _, k := range kinds {
		if l := o.fit(k, row); l != nil && (o.Format == "" || o.Format == k.name) {
			found = append(found, l)
		}
	}
	found = slices.DeleteFunc(found, func(l *layout) bool {
		// Rows of alpaca have an output and maybe an input, which alone would be a pair.
		return l.name == pairKind && l.keys[promptAt] == "input" && slices.ContainsFunc(found, func(f *layout) bool { return f.name == alpacaKind })
	})
	switch {
	case len(found) == 1:
		found[0].seen = row.names()
		return found[0], nil
	case len(found) > 1:
		var names []string
		for _, f := range found {
			names = append(names, f.name)
		}
		return nil, hint.Add(fmt.Errorf("%w: the row can be read as %s: %s", tensor.ErrMalformed, strings.Join(names, " or as "), quoted(row.names())),
			"say which one with --data-format, or name the keys with --text-field, or --prompt-field and --completion-field")
	}
	what := "neither a text, nor prompt and completion, nor messages, but " + quoted(row.names())
	switch _, prompt := row["prompt"]; {
	case prompt:
		what = "a prompt without a completion"
	case row["completion"] != nil:
		what = "a completion without a prompt"
	}
	return nil, hint.Add(fmt.Errorf("%w: %s", tensor.ErrMalformed, what), shapes)
}

// named returns the layout that the names of fields ask for, nil if there are none.
func (o *Options) named() (*layout, error) {
	f := o.Fields
	asked := map[string]bool{textKind: f.Text != "", pairKind: f.Prompt != "" || f.Completion != "", chatKind: f.Messages != ""}
	var found *kind
	for _, k := range kinds {
		if !asked[k.name] {
			continue
		}
		if found != nil {
			return nil, fmt.Errorf("%w: fields of %s and of %s are named; a row is one of them", tensor.ErrMalformed, found.name, k.name)
		}
		found = k
	}
	if found == nil {
		return nil, nil
	}
	if o.Format != "" && o.Format != found.name {
		return nil, fmt.Errorf("%w: the data format is %s, and fields of %s are named", tensor.ErrMalformed, o.Format, found.name)
	}
	l := &layout{kind: found}
	for i, role := range found.roles {
		name := map[string]string{"text": f.Text, "prompt": f.Prompt, "completion": f.Completion, "messages": f.Messages, "system": f.System, "tools": f.Tools}[role]
		if name == "" {
			name = found.usual[i][0]
		}
		l.keys = append(l.keys, name)
	}
	return l, nil
}

// fit returns the layout in which a row is of a kind, nil if there is none.
func (o *Options) fit(k *kind, row object) *layout {
	for n := range k.usual[0] {
		keys := make([]string, len(k.roles))
		for i := range keys {
			keys[i] = k.usual[i][min(n, len(k.usual[i])-1)]
			if i >= k.need {
				keys[i] = optional(k.usual[i], row)
			}
		}
		for i, role := range k.roles {
			if name := map[string]string{"system": o.Fields.System, "tools": o.Fields.Tools}[role]; name != "" {
				keys[i] = name
			}
		}
		if !slices.ContainsFunc(keys[:k.need], func(key string) bool { return row[key] == nil }) {
			return &layout{kind: k, keys: keys}
		}
	}
	return nil
}

// optional returns the key that a row has, the first if it has none.
func optional(usual []string, row object) string {
	for _, key := range usual {
		if row[key] != nil {
			return key
		}
	}
	return usual[0]
}

// value returns a part of a row, nil if there is none and none is needed.
func (l *layout) value(row object, at int) (jsontext.Value, error) {
	v := row[l.keys[at]]
	if v == nil && at < l.need {
		return nil, hint.Add(fmt.Errorf("%w: no %q, but %s", tensor.ErrMalformed, l.keys[at], quoted(row.names())), "%s", l.wanted())
	}
	return v, nil
}

// text returns a string of a row, "" if there is none and none is needed.
func (l *layout) text(row object, at int) (string, error) {
	v, err := l.value(row, at)
	if v == nil || err != nil {
		return "", err
	}
	return l.unquote(v, at)
}

func (l *layout) unquote(v jsontext.Value, at int) (string, error) {
	if v.Kind() != '"' {
		return "", hint.Add(fmt.Errorf("%w: %q is %s, want a text", tensor.ErrMalformed, l.keys[at], kindOf(v)), shapes)
	}
	b, err := jsontext.AppendUnquote(nil, v)
	return string(b), err
}

// kindOf names what a value is.
func kindOf(v jsontext.Value) string {
	switch v.Kind() {
	case '"':
		return "a text"
	case '0':
		return "a number"
	case '[':
		return "a list"
	case '{':
		return "an object"
	}
	return records.Excerpt(v)
}
