package modelcard

import (
	"fmt"
	"slices"
	"strings"
)

// A Derivation says what a model that was made of others has in its card that the one
// it was made of had not.
type Derivation struct {
	// Bases and Relation are base_model and base_model_relation of the front matter:
	// what it was made of, and whether it is a "finetune", "merge" or "quantized" of
	// them.
	Bases    []string
	Relation string

	// Tags are added to those that are there.
	Tags []string

	// Section is put at the end.
	Section string
}

// Derive returns the card of a model that was made of the one whose README.md is
// given, nil for none. All else in it stays as it is, character by character. A front
// matter that cannot be read stays too, with a note.
func Derive(readme []byte, d Derivation) (text []byte, notes []string) {
	head, body := cut(string(readme))
	card, err := frontMatter(string(readme), false)
	if err == nil {
		tags := d.Tags
		if v, ok := card.get("tags"); ok {
			tags = nil
			for _, t := range v.elements() {
				if t.kind == str && !slices.Contains(tags, t.text) {
					tags = append(tags, t.text)
				}
			}
			for _, t := range d.Tags {
				if !slices.Contains(tags, t) {
					tags = append(tags, t)
				}
			}
		}
		var b strings.Builder
		b.WriteString(without(head, "base_model", "base_model_relation", "tags"))
		writeItems(&b, "base_model", d.Bases)
		fmt.Fprintf(&b, "base_model_relation: %s\n", quote(d.Relation))
		writeItems(&b, "tags", tags)
		edited := "---\n" + b.String() + "---\n"
		if _, err = frontMatter(edited, false); err == nil {
			head = edited
		}
	}
	if err != nil {
		notes = append(notes, fmt.Sprintf("%s: its front matter stays as it is: %v", ReadmeName, err))
		head, body = "", string(readme)
	}
	if body = strings.TrimRight(body, "\n"); body != "" {
		body += "\n"
	}
	return []byte(head + body + "\n" + d.Section), notes
}

// cut divides a card into the lines of its front matter, without the marks around
// them, and the rest, as frontMatter does.
func cut(text string) (head, body string) {
	rest, ok := strings.CutPrefix(text, "---\n")
	if !ok {
		if rest, ok = strings.CutPrefix(text, "---\r\n"); !ok {
			return "", text
		}
	}
	for at := 0; at < len(rest); {
		line, _, more := strings.Cut(rest[at:], "\n")
		if strings.TrimSuffix(line, "\r") == "---" {
			end := at + len(line)
			if more {
				end++
			}
			return rest[:at], rest[end:]
		}
		if at += len(line) + 1; !more {
			rest += "\n"
		}
	}
	return rest, "" // it ends with the file
}

// without returns the lines of a mapping but those of some of its keys.
func without(lines string, keys ...string) string {
	var b strings.Builder
	drop := false
	for line := range strings.Lines(lines) {
		// Items of a list may begin where the key does.
		if c := line[0]; c != ' ' && c != '\t' && c != '-' && c != '#' && c != '\n' && c != '\r' && c != ']' && c != '}' {
			key, _, _ := strings.Cut(line, ":")
			drop = slices.Contains(keys, strings.Trim(key, "\"' "))
		}
		if !drop {
			b.WriteString(line)
		}
	}
	return b.String()
}

func writeItems(b *strings.Builder, key string, items []string) {
	if len(items) == 0 {
		return
	}
	fmt.Fprintf(b, "%s:\n", key)
	for _, s := range items {
		fmt.Fprintf(b, "- %s\n", quote(s))
	}
}

// elements returns the elements of a list, or what stands for a list of one.
func (v *value) elements() []*value {
	if v.kind == list {
		return v.list
	}
	return []*value{v}
}

// Cell returns a text as a cell of a table in Markdown has it.
func Cell(s string) string {
	s = strings.Join(strings.Fields(strings.ToValidUTF8(s, "\ufffd")), " ")
	return strings.NewReplacer(`\`, `\\`, "|", `\|`, "<", "&lt;", "`", "\\`").Replace(s)
}
