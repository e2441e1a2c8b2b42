package ollama

import (
	"fmt"
	"strings"
)

// A Modelfile is what ollama create reads.
type Modelfile struct {
	// Comments stand in front.
	Comments []string

	// From is the model, Adapter what is put on top of it, "" for nothing: paths from the
	// directory of the Modelfile, or whole ones.
	From, Adapter string

	// Template is the chat template, "" to leave it to what Ollama finds out itself.
	Template string

	// System is the message of the system in conversations that have none.
	System string

	// Stop are texts that end an answer.
	Stop []string

	// NumCtx is the length of the context; 0 leaves it to Ollama.
	NumCtx int
}

// quotes are what a text of several lines stands between.
const quotes = `"""`

// Encode returns the text of the Modelfile. It returns an error for a text that it cannot
// hold.
func (m *Modelfile) Encode() ([]byte, error) {
	var b strings.Builder
	for _, c := range m.Comments {
		for line := range strings.Lines(c) {
			fmt.Fprintf(&b, "# %s\n", strings.TrimRight(line, "\r\n"))
		}
	}
	type entry struct {
		command, text string
		block         bool
	}
	list := []entry{{"FROM", m.From, false}, {"ADAPTER", m.Adapter, false}, {"TEMPLATE", m.Template, true}, {"SYSTEM", m.System, true}}
	for _, s := range m.Stop {
		list = append(list, entry{"PARAMETER stop", s, false})
	}
	for _, e := range list {
		switch {
		case e.text == "":
		case strings.Contains(e.text, quotes) || !e.block && strings.ContainsAny(e.text, "\r\n\""):
			return nil, fmt.Errorf("a Modelfile cannot hold the %s %q", e.command, e.text)
		case e.block:
			fmt.Fprintf(&b, "%s %s%s%s\n", e.command, quotes, e.text, quotes)
		default:
			fmt.Fprintf(&b, "%s \"%s\"\n", e.command, e.text)
		}
	}
	if m.NumCtx > 0 {
		fmt.Fprintf(&b, "PARAMETER num_ctx %d\n", m.NumCtx)
	}
	return []byte(b.String()), nil
}
