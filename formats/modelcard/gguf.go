package modelcard

import (
	"fmt"
	"math"
	"strings"

	"github.com/seed18967229/nibble/tensor"
)

// A number is the type that GGUF has for a setting.
type number uint8

const (
	int32s number = iota + 1
	float32s
)

// A setting of generation: the field, the keys that generation_config.json may
// have it under (the first that is there counts), and its type, 0 for text.
type setting struct {
	field  string
	config []string
	number number
}

// sampling are all settings, in the order of the file.
var sampling = []setting{
	{"sampling.sequence", []string{"sequence"}, 0},
	{"sampling.top_k", []string{"top_k"}, int32s},
	{"sampling.top_p", []string{"top_p"}, float32s},
	{"sampling.min_p", []string{"min_p"}, float32s},
	{"sampling.xtc_probability", []string{"xtc_probability"}, float32s},
	{"sampling.xtc_threshold", []string{"xtc_threshold"}, float32s},
	{"sampling.temp", []string{"temperature"}, float32s},
	{"sampling.penalty_last_n", []string{"penalty_last_n"}, int32s},
	{"sampling.penalty_repeat", []string{"penalty_repeat", "repetition_penalty"}, float32s},
	{"sampling.mirostat", []string{"mirostat"}, int32s},
	{"sampling.mirostat_tau", []string{"mirostat_tau"}, float32s},
	{"sampling.mirostat_eta", []string{"mirostat_eta"}, float32s},
}

// prefix begins every key here.
const prefix = "general."

// texts are the fields that are text, in the order of the file, and their keys
// after "general.".
var texts = []struct{ field, key string }{
	{"name", "name"},
	{"author", "author"},
	{"version", "version"},
	{"organization", "organization"},
	{"finetune", "finetune"},
	{"basename", "basename"},
	{"description", "description"},
	{"quantized_by", "quantized_by"},
	{"size_label", "size_label"},
	{"license", "license"},
	{"license_name", "license.name"},
	{"license_link", "license.link"},
	{"url", "url"},
	{"doi", "doi"},
	{"uuid", "uuid"},
	{"repo_url", "repo_url"},
	{"source_url", "source.url"},
	{"source_doi", "source.doi"},
	{"source_uuid", "source.uuid"},
	{"source_repo_url", "source.repo_url"},
}

// entryKeys are what an entry can say, in the order of the file.
var entryKeys = []string{"name", "author", "version", "organization", "description", "url", "doi", "uuid", "repo_url"}

// lists are the fields that are lists, and their keys after "general.".
var lists = []struct{ field, key string }{{"tags", "tags"}, {"languages", "languages"}}

// The keys of what a model was made from: the number of entries, and before the
// number of an entry.
const (
	modelPrefix   = prefix + "base_model."
	datasetPrefix = prefix + "dataset."
	countKey      = "count"
)

// GGUF returns the metadata that stands between general.type and the keys of the
// architecture: general.sampling.*, general.name and so on to
// general.languages. dirName is the name of the model's directory, the last
// resort for what the model is called. What the card says and GGUF cannot hold is
// left out, and the notes say so.
func (c *Card) GGUF(dirName string, p Params) (tensor.Meta, []string) {
	f := c.gather(dirName, p.Total)
	if !f.has("size_label") && p.Total > 0 {
		f.fields["size_label"] = text(p.SizeLabel())
	}
	return f.meta(), f.notes
}

func (f *facts) meta() tensor.Meta {
	var m tensor.Meta
	add := func(key string, v any) {
		if s, ok := v.(string); v != nil && (!ok || s != "") {
			m = append(m, tensor.KV{Key: key, Value: v})
		}
	}
	for _, s := range sampling {
		if s.number != 0 {
			add(prefix+s.field, f.number(prefix+s.field, f.fields[s.field], s.number))
		} else {
			add(prefix+s.field, f.text(prefix+s.field, f.fields[s.field]))
		}
	}
	for _, t := range texts {
		if t.field == "license" {
			add(prefix+t.key, f.license())
			continue
		}
		add(prefix+t.key, f.text(prefix+t.key, f.fields[t.field]))
	}
	for _, l := range []struct {
		prefix  string
		entries []entry
	}{{modelPrefix, f.models}, {datasetPrefix, f.datasets}} {
		if l.entries == nil {
			continue
		}
		add(l.prefix+countKey, uint32(len(l.entries)))
		for i, e := range l.entries {
			for _, k := range entryKeys {
				key := fmt.Sprintf("%s%d.%s", l.prefix, i, k)
				add(key, f.text(key, e[k]))
			}
		}
	}
	for _, l := range lists {
		add(prefix+l.key, f.array(prefix+l.key, f.fields[l.field]))
	}
	return m
}

// text returns the text of a value, "" if it has none. The reference fails to
// write anything else that is not empty; a number is taken as it is spelled.
func (f *facts) text(key string, v *value) string {
	switch {
	case v == nil || v.empty():
		return ""
	case v.kind == list || v.kind == mapping:
		f.note("%s is left out: %v, where there must be text", key, v.kind)
		return ""
	case v.kind != str:
		f.note("%s is %v, where there must be text; written as %q", key, v.kind, v.spelling())
	}
	return v.spelling()
}

// license is text, or a list that becomes one.
func (f *facts) license() string {
	v := f.fields["license"]
	if v == nil || v.kind != list {
		return f.text(prefix+"license", v)
	}
	var names []string
	for _, e := range v.list {
		if e.kind != str {
			f.note("%slicense is a list in which there is %v", prefix, e.kind)
		}
		if e.kind != list && e.kind != mapping {
			names = append(names, e.spelling())
		}
	}
	return strings.Join(names, ",")
}

// number returns a setting as the type that GGUF has for it, nil if it is none.
func (f *facts) number(key string, v *value, t number) any {
	if v == nil || v.kind == null {
		return nil
	}
	n, ok := numberOf(v, t)
	if !ok {
		f.note("%s is left out: %q does not fit its type", key, v.spelling())
		return nil
	}
	return n
}

// numberOf is Python's struct.pack: truth values are numbers, whole numbers may
// stand for others, but not the other way.
func numberOf(v *value, t number) (any, bool) {
	if v.kind == boolean {
		v = &value{kind: integer, text: map[bool]string{false: "0", true: "1"}[truths[strings.ToLower(v.text)]]}
	}
	switch {
	case t == int32s && v.kind == integer:
		n := v.integer()
		if n == nil || !n.IsInt64() || n.Int64() < math.MinInt32 || n.Int64() > math.MaxInt32 {
			return nil, false
		}
		return int32(n.Int64()), true
	case t == float32s && (v.kind == integer || v.kind == float):
		x := v.float()
		y := float32(x)
		return y, math.IsInf(x, 0) == math.IsInf(float64(y), 0)
	}
	return nil, false
}

// array returns a list as the array that the reference writes: of text, whole
// numbers, other numbers or truth values. A list of several kinds, which it
// refuses, becomes text.
func (f *facts) array(key string, v *value) any {
	if v == nil || v.kind == null || len(v.list) == 0 {
		return nil
	}
	first := v.list[0].kind
	for _, e := range v.list {
		if e.kind != first {
			first = other
		}
	}
	switch first {
	case integer:
		if out, ok := collect(v.list, func(e *value) (int32, bool) { n, ok := numberOf(e, int32s); i, _ := n.(int32); return i, ok }); ok {
			return out
		}
	case float:
		if out, ok := collect(v.list, func(e *value) (float32, bool) { n, ok := numberOf(e, float32s); x, _ := n.(float32); return x, ok }); ok {
			return out
		}
	case boolean:
		out, _ := collect(v.list, func(e *value) (bool, bool) { return !e.empty(), true })
		return out
	}
	var out []string
	for _, e := range v.list {
		if e.kind != list && e.kind != mapping && e.kind != null {
			out = append(out, e.spelling())
		}
	}
	if first != str {
		f.note("%s is a list of more than text; of %d elements %d are written, as text", key, len(v.list), len(out))
	}
	if len(out) == 0 {
		return nil
	}
	return out
}

func collect[T any](list []*value, of func(*value) (T, bool)) ([]T, bool) {
	out := make([]T, len(list))
	for i, v := range list {
		var ok bool
		if out[i], ok = of(v); !ok {
			return nil, false
		}
	}
	return out, true
}
