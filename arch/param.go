package arch

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
)

// A Param is one hyperparameter, or a few that belong together, and how
// config.json and GGUF spell it.
type Param interface {
	// readJSON takes the value from a config.json.
	readJSON(o object, c *Config) error

	// writeJSON returns the members that say it in a config.json.
	writeJSON(c *Config) []Member

	// writeGGUF returns the metadata entries that say it; arch is the prefix of
	// their keys, with its dot.
	writeGGUF(c *Config, arch string) []KV

	// readGGUF takes the value from a file's metadata.
	readGGUF(g GGUF, arch string, c *Config) error
}

// Member is a member of config.json.
type Member struct {
	Name  string
	Value any
}

// KV is an entry of GGUF metadata. The Value is a uint32, float32, bool or
// string.
type KV struct {
	Key   string
	Value any

	// Early entries stand before general.type.
	Early bool
}

// KeyFileType is the key of the entry whose value is the caller's to fill in:
// the converter writes it among the hyperparameters.
const KeyFileType = "general.file_type"

// GGUF gives the values of a GGUF file's metadata.
type GGUF interface{ Get(key string) (any, bool) }

// object is a JSON object whose members have not been read yet.
type object map[string]json.RawMessage

// find returns the first of the members that is there and not null.
func (o object) find(names []string) (name string, value json.RawMessage) {
	for _, n := range names {
		if v, ok := o[n]; ok && string(bytes.TrimSpace(v)) != "null" {
			return n, v
		}
	}
	return "", nil
}

// scalar is what a hyperparameter can be.
type scalar interface {
	int64 | float64 | bool | string | []int64 | []string
}

// value is a Param of one value.
type value[T scalar] struct {
	// json are the names that are read, in this order; the first is written.
	// There may be none.
	json []string

	// key is GGUF's, behind the architecture; "" for what it does not hold.
	key string

	at func(c *Config) *T

	// def is what a configuration that does not say has.
	def T

	// when says whether GGUF gets it; nil is always.
	when func(c *Config) bool

	// need says that a GGUF file must have it.
	need bool

	// null says that config.json has null for zero.
	null bool

	// integer says that transformers calls a number an int that need not be whole
	// for all the arithmetic does with it.
	integer bool

	// gguf is what a GGUF file that does not say it means, if that is not def.
	gguf *T
}

// names, or and the others return the row with a change, for families that
// spell it otherwise.
func (v value[T]) names(json ...string) value[T]             { v.json = json; return v }
func (v value[T]) or(def T) value[T]                         { v.def = def; return v }
func (v value[T]) onlyIf(when func(c *Config) bool) value[T] { v.when = when; return v }
func (v value[T]) required() value[T]                        { v.need = true; return v }
func (v value[T]) whole() value[T]                           { v.integer = true; return v }
func (v value[T]) inGGUF(def T) value[T]                     { v.gguf = &def; return v }

func (v value[T]) readJSON(o object, c *Config) error {
	name, raw := o.find(v.json)
	if name == "" {
		if len(v.json) > 0 {
			*v.at(c) = v.def
		}
		return nil
	}
	if err := decode(raw, v.at(c)); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// decode reads one value. A whole number may be spelled as a float.
func decode[T scalar](raw json.RawMessage, to *T) error {
	if n, ok := any(to).(*int64); ok {
		f, err := strconv.ParseFloat(string(bytes.TrimSpace(raw)), 64)
		if err == nil && f == math.Trunc(f) && math.Abs(f) < 1<<53 {
			*n = int64(f)
			return nil
		}
		return fmt.Errorf("%.40s where there must be a whole number", raw)
	}
	if err := json.Unmarshal(raw, to); err != nil {
		return fmt.Errorf("%.40s where there must be a %T", raw, *to)
	}
	return nil
}

func (v value[T]) writeJSON(c *Config) []Member {
	if len(v.json) == 0 {
		return nil
	}
	x := any(*v.at(c))
	switch t := x.(type) {
	case int64:
		if v.null && t == 0 {
			x = nil
		}
	case float64:
		switch {
		case v.null && t == 0:
			x = nil
		case v.integer && t == math.Trunc(t):
			x = int64(t)
		}
	case []int64:
		if len(t) == 0 {
			return nil
		}
	case []string:
		if len(t) == 0 {
			return nil
		}
	}
	return []Member{{v.json[0], x}}
}

func (v value[T]) writeGGUF(c *Config, arch string) []KV {
	if v.key == "" || v.when != nil && !v.when(c) {
		return nil
	}
	kv := KV{Key: arch + v.key}
	switch t := any(*v.at(c)).(type) {
	case int64:
		kv.Value = uint32(t) // New keeps them small
	case float64:
		kv.Value = float32(t)
	default:
		kv.Value = t
	}
	return []KV{kv}
}

func (v value[T]) readGGUF(g GGUF, arch string, c *Config) error {
	found := false
	if v.key != "" {
		var err error
		if found, err = get(g, arch+v.key, v.at(c)); err != nil {
			return err
		}
	}
	switch {
	case found:
	case v.need:
		return fmt.Errorf("metadata %q is missing", arch+v.key)
	case v.gguf != nil:
		*v.at(c) = *v.gguf
	default:
		*v.at(c) = v.def
	}
	return nil
}

// get reads one entry of GGUF metadata and reports whether it is there.
func get[T scalar](g GGUF, key string, to *T) (bool, error) {
	v, ok := g.Get(key)
	if !ok {
		return false, nil
	}
	bad := func(want string) error { return fmt.Errorf("metadata %q is a %T, want %s", key, v, want) }
	switch to := any(to).(type) {
	case *int64:
		n, ok := whole(v)
		if !ok {
			return true, bad("a number")
		}
		*to = n
	case *float64:
		f, ok := v.(float32)
		if !ok {
			return true, bad("a float32")
		}
		*to = shortest(f)
	case *bool:
		if *to, ok = v.(bool); !ok {
			return true, bad("a bool")
		}
	case *string:
		if *to, ok = v.(string); !ok {
			return true, bad("a string")
		}
	default:
		return true, bad("nothing")
	}
	return true, nil
}

// whole returns an integer of any width, or the one number that an array of
// one for each layer repeats.
func whole(v any) (int64, bool) {
	switch v := v.(type) {
	case uint32:
		return int64(v), true
	case int32:
		return int64(v), true
	case uint64:
		return int64(min(v, 1<<62)), true
	case int64:
		return v, true
	case uint16:
		return int64(v), true
	case []uint32:
		return same(v)
	case []int32:
		return same(v)
	}
	return 0, false
}

func same[T int32 | uint32](list []T) (int64, bool) {
	if len(list) == 0 || slices.Min(list) != slices.Max(list) {
		return 0, false
	}
	return int64(list[0]), true
}

// shortest returns the float64 with the fewest digits that rounds to f: 1e-05
// and not 9.999999747378752e-06.
func shortest(f float32) float64 {
	d, err := strconv.ParseFloat(strconv.FormatFloat(float64(f), 'g', -1, 32), 64)
	if err != nil {
		return float64(f)
	}
	return d
}

// ParseConfig reads the text of a config.json. A model of text and more (pictures,
// sound) is read as what its text_config says. A missing value gets
// transformers' default; one that is missing and has none, or that no model can
// have, is an error that names it.
func ParseConfig(text []byte) (*Model, error) {
	var o object
	if err := json.Unmarshal(text, &o); err != nil {
		return nil, err
	}
	var classes []string
	var modelType string
	for {
		if _, raw := o.find([]string{"architectures"}); raw != nil {
			if err := json.Unmarshal(raw, &classes); err != nil {
				return nil, errors.New("architectures is not a list of strings")
			}
		}
		modelType = ""
		if _, raw := o.find([]string{"model_type"}); raw != nil {
			if err := decode(raw, &modelType); err != nil {
				return nil, fmt.Errorf("model_type: %w", err)
			}
		}
		_, inner := o.find([]string{"text_config", "llm_config", "lm_config", "language_config"})
		if inner == nil {
			break
		}
		var sub object
		if err := json.Unmarshal(inner, &sub); err != nil {
			return nil, errors.New("text_config is not an object")
		}
		// The text model's own members hold, the others are inherited; its
		// model_type is that of no other part.
		for _, n := range []string{"text_config", "llm_config", "lm_config", "language_config", "model_type"} {
			delete(o, n)
		}
		for n, v := range sub {
			o[n] = v
		}
	}
	f, err := lookup(modelType, classes)
	if err != nil {
		return nil, err
	}
	c := &Config{}
	for _, p := range f.Params {
		if err := p.readJSON(o, c); err != nil {
			return nil, err
		}
	}
	return New(f, c)
}

// FromGGUF reads the hyperparameters of a GGUF file of the family. What GGUF
// says by the presence of a tensor is asked of has: biases, a head of its own.
// vocab is the number of rows of the embeddings.
func FromGGUF(f *Family, g GGUF, has func(tensor string) bool, vocab int64) (*Model, error) {
	c := &Config{}
	arch := f.GGUF + "."
	for _, p := range f.Params {
		if err := p.readGGUF(g, arch, c); err != nil {
			return nil, err
		}
	}
	if c.VocabSize != 0 && c.VocabSize != vocab {
		return nil, fmt.Errorf("metadata %q is %d, but token_embd.weight has %d rows", arch+"vocab_size", c.VocabSize, vocab)
	}
	c.VocabSize = vocab
	c.TieWordEmbeddings = !has("output.weight")
	c.AttentionBias = has("blk.0.attn_q.bias")
	c.MLPBias = has("blk.0.ffn_up.bias")
	return New(f, c)
}

// Members returns the members of config.json that say what the model is, beside
// architectures and model_type.
func (m *Model) Members() []Member {
	out := []Member{{"architectures", m.Classes[:1]}, {"model_type", m.ModelTypes[0]}}
	for _, p := range m.Family.Params {
		for _, x := range p.writeJSON(m.Config) {
			if !slices.ContainsFunc(out, func(y Member) bool { return y.Name == x.Name }) {
				out = append(out, x)
			}
		}
	}
	return out
}

// KVs returns the entries of GGUF metadata that say what the model is, in the
// order of llama.cpp's converter. One of them has KeyFileType.
func (m *Model) KVs() []KV {
	var out []KV
	for _, p := range m.Family.Params {
		out = append(out, p.writeGGUF(m.Config, m.GGUF+".")...)
	}
	return out
}
