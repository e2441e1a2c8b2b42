package modelcard

import (
	"bytes"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/seed18967229/nibble/formats/hf"
	"github.com/seed18967229/nibble/tensor"
)

// What a rebuilt README.md takes from a GGUF file, which may hold anything: the
// bytes of one text and the elements of one list. All lists together stay below
// maxLines.
const (
	maxText  = 64 << 10
	maxItems = 900
	maxNotes = 50
)

// rebuilt are the keys of the front matter, in the order of cards on the hub,
// and the keys of GGUF, after "general.", that they are made from. Reading the
// card again gives each of them back.
var rebuilt = []struct{ card, gguf string }{
	{"license", "license"},
	{"license_name", "license.name"},
	{"license_link", "license.link"},
	{"language", "languages"},
	{"tags", "tags"},
	{"base_model", ""},
	{"datasets", ""},
	{"model_name", "name"},
	{"model_author", "author"},
	{"model_version", "version"},
	{"model_organization", "organization"},
	{"model_finetune", "finetune"},
	{"model_basename", "basename"},
	{"model_description", "description"},
	{"model_size_label", "size_label"},
	{"model_url", "source.url"},
	{"model_doi", "source.doi"},
	{"model_uuid", "source.uuid"},
	{"model_repo_url", "source.repo_url"},
}

// FromGGUF makes a README.md of a GGUF file's metadata: a front matter that says
// what the general.* keys say, so that a file that is converted to a directory
// and back keeps its licence, authors, base models, data sets, tags and
// languages. It returns nil if there is nothing to say, and notes on what has no
// place in a model card. p are the file's numbers of parameters, as CountParams
// has them: whether the name of a base model says what its entry says depends on
// them.
func FromGGUF(meta tensor.Meta, p Params) (readme []byte, notes []string) {
	r := rebuilder{meta: make(map[string]any, len(meta)), total: p.Total}
	for _, kv := range meta {
		r.meta[kv.Key] = kv.Value
	}
	for _, k := range rebuilt {
		switch k.card {
		case "base_model":
			r.entries(k.card, modelPrefix)
		case "datasets":
			r.entries(k.card, datasetPrefix)
		default:
			r.key(k.card, prefix+k.gguf)
		}
	}
	for _, t := range texts {
		if key := prefix + t.key; r.meta[key] != nil && !Covers(key) {
			r.note("%s has no place in a model card", key)
		}
	}
	if r.b.Len() == 0 {
		return nil, r.notes
	}
	name, _ := r.meta[prefix+"name"].(string)
	if name == "" || len(name) > maxText {
		name = "Model"
	}
	return fmt.Appendf(nil, "---\n%s---\n\n# %s\n\nThis card was made from the metadata of a GGUF file; the original is not in it.\n",
		r.b.String(), strings.Join(strings.Fields(strings.ToValidUTF8(name, "\ufffd")), " ")), r.notes
}

// Covers reports whether what the key says finds its way from a GGUF file into
// README.md or generation_config.json and back.
func Covers(key string) bool {
	if strings.HasPrefix(key, modelPrefix) || strings.HasPrefix(key, datasetPrefix) {
		return true
	}
	for _, s := range sampling {
		if key == prefix+s.field {
			return true
		}
	}
	for _, k := range rebuilt {
		if k.gguf != "" && key == prefix+k.gguf {
			return true
		}
	}
	return false
}

type rebuilder struct {
	meta  map[string]any
	total int64
	b     strings.Builder
	notes []string
}

func (r *rebuilder) note(format string, args ...any) {
	if n := fmt.Sprintf(format, args...); len(r.notes) < maxNotes && !slices.Contains(r.notes, n) {
		r.notes = append(r.notes, n)
	}
}

// key writes a text or a list.
func (r *rebuilder) key(card, gguf string) {
	switch v := r.meta[gguf].(type) {
	case nil:
	case string:
		if s, ok := r.scalar(gguf, v); ok && v != "" {
			fmt.Fprintf(&r.b, "%s: %s\n", card, s)
		}
	case []string:
		writeList(r, card, gguf, v)
	case []int32:
		writeList(r, card, gguf, v)
	case []float32:
		writeList(r, card, gguf, v)
	case []bool:
		writeList(r, card, gguf, v)
	default:
		r.note("%s is left out: a %T has no place in a model card", gguf, v)
	}
}

func writeList[T any](r *rebuilder, card, gguf string, items []T) {
	if len(items) == 0 {
		return
	}
	if len(items) > maxItems {
		r.note("%s: of %d elements the first %d are taken", gguf, len(items), maxItems)
		items = items[:maxItems]
	}
	fmt.Fprintf(&r.b, "%s:\n", card)
	for _, x := range items {
		if s, ok := r.scalar(gguf, x); ok {
			fmt.Fprintf(&r.b, "- %s\n", s)
		}
	}
}

// scalar spells a value in YAML and reports whether it may stand in the card.
func (r *rebuilder) scalar(key string, v any) (string, bool) {
	switch v := v.(type) {
	case string:
		if len(v) > maxText {
			r.note("%s is left out: a text of %d bytes", key, len(v))
			return "", false
		}
		if s := quote(v); r.b.Len()+len(s) < maxFrontMatter-maxText {
			return s, true
		}
		r.note("%s is left out: the card would be too large", key)
		return "", false
	case float32:
		return yamlFloat(v), true
	}
	return fmt.Sprint(v), true
}

// entries writes base models or data sets: as ids where the id says all that the
// entry says, which is what the hub understands, else in full.
func (r *rebuilder) entries(card, keys string) {
	n, ok := r.meta[keys+countKey].(uint32)
	if !ok {
		return
	}
	if n > maxItems {
		r.note("%s%s is %d: the first %d are taken", keys, countKey, n, maxItems)
		n = maxItems
	}
	if n == 0 {
		fmt.Fprintf(&r.b, "%s: []\n", card)
		return
	}
	fmt.Fprintf(&r.b, "%s:\n", card)
	for i := range n {
		said := make(map[string]string)
		for _, k := range entryKeys {
			if s, ok := r.meta[fmt.Sprintf("%s%d.%s", keys, i, k)].(string); ok && s != "" {
				said[k] = s
			}
		}
		if s, ok := shortEntry(said, r.total); ok {
			if s, ok = r.scalar(keys+countKey, s); ok {
				fmt.Fprintf(&r.b, "- %s\n", s)
				continue
			}
		}
		lead := "- "
		for _, k := range entryKeys {
			if s, ok := r.scalar(fmt.Sprintf("%s%d.%s", keys, i, k), said[k]); ok && said[k] != "" {
				fmt.Fprintf(&r.b, "%s%s: %s\n", lead, k, s)
				lead = "  "
			}
		}
		if lead == "- " {
			r.b.WriteString("- {}\n")
		}
	}
}

// shortEntry returns the id or address that an entry was made from, if there is
// one that gives the same entry.
func shortEntry(said map[string]string, total int64) (string, bool) {
	url := said["repo_url"]
	for _, s := range []string{strings.TrimPrefix(url, "https://huggingface.co/"), url} {
		if s == "" || len(s) > maxText {
			continue
		}
		e := entryOf(s, total)
		same := true
		for _, k := range entryKeys {
			v := e[k]
			if v == nil {
				v = &value{}
			}
			same = same && v.text == said[k]
		}
		if same {
			return s, true
		}
	}
	return "", false
}

// bare is a text that needs no quotes in any version of YAML, unless it is a
// word with a meaning.
var bare = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_./+@%?=~-]+(:[A-Za-z0-9_./+@%?=~-]+)*( [A-Za-z0-9_./+@%?=~()-]+)*$`)

// quote spells a text in YAML, on one line and without a tab.
func quote(s string) string {
	s = strings.ToValidUTF8(s, "\ufffd")
	if bare.MatchString(s) && plain(s).kind == str {
		return s
	}
	// checkBounds, which does not look for quotes, must not take the text for
	// something deep or laborious.
	depth, deepest := 0, 0
	for i := range len(s) {
		depth = nesting(depth, s[i])
		deepest = max(deepest, depth)
	}
	brackets := depth > 0 || deepest > maxDepth/2
	var b strings.Builder
	b.WriteByte('"')
	for i, r := range s {
		switch {
		case brackets && (r == '[' || r == '{'), i > 0 && mark(s, i):
			fmt.Fprintf(&b, `\u%04x`, r)
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case r <= 0xffff && (!unicode.IsPrint(r) || r == '\ufeff'):
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// yamlFloat spells a number so that YAML 1.1 takes it for one: with a dot, and
// a sign in the exponent.
func yamlFloat(x float32) string {
	switch f := float64(x); {
	case math.IsNaN(f):
		return ".nan"
	case math.IsInf(f, 1):
		return ".inf"
	case math.IsInf(f, -1):
		return "-.inf"
	}
	digits, exp, _ := strings.Cut(strconv.FormatFloat(float64(x), 'e', -1, 32), "e")
	if !strings.Contains(digits, ".") {
		digits += ".0"
	}
	return digits + "e" + exp
}

// Sampling returns the members of generation_config.json that a GGUF file's
// metadata gives, and notes on them.
func Sampling(meta tensor.Meta) ([]hf.Field, []string) {
	var out []hf.Field
	var notes []string
	for _, s := range sampling {
		key := prefix + s.field
		v, ok := meta.Get(key)
		if !ok {
			continue
		}
		var text []byte
		switch v := v.(type) {
		case string:
			text, _ = jsontext.AppendQuote(nil, strings.ToValidUTF8(v, "\ufffd"))
		case float32:
			text = strconv.AppendFloat(nil, float64(v), 'g', -1, 32)
			if !bytes.ContainsAny(text, ".e") {
				text = append(text, ".0"...) // as Python writes it
			}
		default:
			text = fmt.Append(nil, v)
		}
		if len(text) > maxText || !jsontext.Value(text).IsValid() {
			notes = append(notes, key+" is left out: it is nothing that JSON can hold")
			continue
		}
		// The last name is the one that transformers has for it.
		out = append(out, hf.Field{Name: s.config[len(s.config)-1], Value: text})
	}
	if samples(meta) {
		out = append([]hf.Field{{Name: "do_sample", Value: []byte("true")}}, out...)
		notes = append(notes, "do_sample is set, since there is something to sample by; GGUF does not say")
	}
	return out, notes
}

// samples reports whether the settings are for drawing tokens rather than taking
// the likeliest: transformers warns of a temperature or of a choice among few
// without do_sample.
func samples(meta tensor.Meta) bool {
	if temp, ok := tensor.Lookup[float32](meta, prefix+"sampling.temp"); ok {
		return temp > 0
	}
	for _, field := range []string{"sampling.top_k", "sampling.top_p", "sampling.min_p"} {
		if _, ok := meta.Get(prefix + field); ok {
			return true
		}
	}
	return false
}
