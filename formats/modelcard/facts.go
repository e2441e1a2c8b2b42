package modelcard

import (
	"fmt"
	"regexp"
	"strings"
)

// facts is the reference's Metadata: its fields, each with a value or none. A
// field whose value is null has none.
type facts struct {
	fields map[string]*value

	// models and datasets are what the model was made from, nil if nothing says
	// so.
	models, datasets []entry

	notes []string
}

// An entry describes a base model or a data set by the names in entryKeys.
type entry map[string]*value

// cardKeys are the keys of a model card and the fields that they fill, unless
// these are filled already (Metadata.apply_metadata_heuristic).
var cardKeys = []struct{ field, key string }{
	{"name", "name"},
	{"author", "author"},
	{"version", "version"},
	{"organization", "organization"},
	{"description", "description"},
	{"finetune", "finetune"},
	{"basename", "basename"},
	{"size_label", "size_label"},
	{"source_url", "url"},
	{"source_doi", "doi"},
	{"source_uuid", "uuid"},
	{"source_repo_url", "repo_url"},

	{"name", "model_name"},
	{"author", "model_author"},
	{"version", "model_version"},
	{"organization", "model_organization"},
	{"description", "model_description"},
	{"finetune", "model_finetune"},
	{"basename", "model_basename"},
	{"size_label", "model_size_label"},
	{"source_url", "model_url"},
	{"source_doi", "model_doi"},
	{"source_uuid", "model_uuid"},
	{"source_repo_url", "model_repo_url"},

	{"author", "model_creator"},
	{"basename", "model_type"},

	{"license", "license"},
	{"license_name", "license_name"},
	{"license_link", "license_link"},
}

// listKeys are the keys whose values are added to a list.
var listKeys = []struct{ field, key string }{
	{"tags", "tags"},
	{"tags", "pipeline_tag"},
	{"languages", "languages"},
	{"languages", "language"},
}

// The first of these keys that a card has counts.
var (
	modelKeys   = []string{"base_model", "base_models", "base_model_sources"}
	datasetKeys = []string{"datasets", "dataset", "dataset_sources"}
)

func (f *facts) note(format string, args ...any) {
	f.notes = append(f.notes, fmt.Sprintf(format, args...))
}

func (f *facts) has(field string) bool {
	v := f.fields[field]
	return v != nil && v.kind != null
}

// set fills a field that has no value yet.
func (f *facts) set(field string, v *value) {
	if !f.has(field) {
		f.fields[field] = v
	}
}

func text(s string) *value { return &value{kind: str, text: s} }

// gather collects what the files and the names say: the card first, the name in
// config.json next, the directory's name last.
func (c *Card) gather(dirName string, total int64) *facts {
	f := &facts{fields: make(map[string]*value)}
	if c.card != nil {
		f.readCard(c.card, total)
	}
	if c.nameOrPath != nil && strings.Count(*c.nameOrPath, "/") <= 1 {
		f.readID(parseID(*c.nameOrPath, total))
	}
	f.readID(parseID(dirName, total))
	for _, s := range sampling {
		for _, key := range s.config {
			if v, ok := c.generation.get(key); ok {
				f.fields[s.field] = v
				break
			}
		}
	}
	if c.Override != nil {
		c.Override.apply(f)
	}
	return f
}

func (f *facts) readCard(card *value, total int64) {
	for _, k := range cardKeys {
		if v, ok := card.get(k.key); ok {
			f.set(k.field, v)
		}
	}
	f.models = f.readEntries(card, modelKeys, total)
	f.datasets = f.readEntries(card, datasetKeys, total)
	for _, k := range listKeys {
		v, ok := card.get(k.key)
		if !ok || v.kind == null {
			continue
		}
		if f.fields[k.field] == nil {
			f.fields[k.field] = &value{kind: list}
		}
		l := f.fields[k.field]
		switch v.kind {
		case str:
			l.list = append(l.list, v)
		case list:
			l.list = append(l.list, v.list...)
		default:
			f.note("%s: %s is ignored: %v, where there must be text or a list", ReadmeName, k.key, v.kind)
		}
	}
}

// readID fills what the name of the model says.
func (f *facts) readID(i id) {
	for _, p := range []struct {
		field string
		text  *string
		title bool
	}{
		{"name", i.full, true}, {"organization", i.organization, true},
		{"basename", i.basename, false}, {"finetune", i.finetune, false}, {"version", i.version, false}, {"size_label", i.sizeLabel, false},
	} {
		if p.text == nil {
			continue
		}
		s := *p.text
		if p.title {
			s = titleOf(s)
		}
		f.set(p.field, text(s))
	}
}

// readEntries returns what the first of the keys lists, nil if the card has none
// of them.
func (f *facts) readEntries(card *value, keys []string, total int64) []entry {
	var v *value
	key := ""
	for _, key = range keys {
		if x, ok := card.get(key); ok {
			v = x
			break
		}
	}
	if v == nil {
		return nil
	}
	entries := []entry{}
	var items []*value
	switch v.kind {
	case null:
	case str:
		items = []*value{v}
	case list:
		items = v.list
	default:
		f.note("%s: %s is ignored: %v, where there must be text or a list", ReadmeName, key, v.kind)
	}
	for n, item := range items {
		switch item.kind {
		case str:
			entries = append(entries, entryOf(item.text, total))
		case mapping:
			entries = append(entries, item.fields)
		default:
			f.note("%s: entry %d of %s is %v, where there must be text or a mapping", ReadmeName, n, key, item.kind)
			entries = append(entries, entry{})
		}
	}
	return entries
}

// hubURL is the address of a repository. Its dot is the reference's.
var hubURL = regexp.MustCompile(`^https?://huggingface.co/([^/]+/[^/]+)$`)

// entryOf describes a base model or data set by its id on the Hugging Face hub
// or the address of a repository.
func entryOf(s string, total int64) entry {
	e := entry{}
	if strings.HasPrefix(s, "http://") || strings.HasPrefix(s, "https://") || strings.HasPrefix(s, "ssh://") {
		e["repo_url"] = text(s)
		if m := hubURL.FindStringSubmatch(s); m != nil && strings.Contains(s, "huggingface.co") {
			e.readID(parseID(m[1], total))
		}
		return e
	}
	i := parseID(s, total)
	e.readID(i)
	if i.organization != nil {
		e["repo_url"] = text("https://huggingface.co/" + *i.organization + "/" + *i.full)
	}
	return e
}

func (e entry) readID(i id) {
	e["name"] = text(titleOf(*i.full))
	if i.organization != nil {
		e["organization"] = text(titleOf(*i.organization))
	}
	if i.version != nil {
		e["version"] = text(*i.version)
	}
}
