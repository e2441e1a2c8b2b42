package peft

import (
	"fmt"
	"io"
	"maps"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/tensor"
)

// NewAdapter returns an adapter of tensors that are named as in Adapter, whatever file they
// come from. Closing it closes file, which may be nil.
func NewAdapter(c *Config, t *tensor.Table, path string, file io.Closer) *Adapter {
	if file == nil {
		file = io.NopCloser(nil)
	}
	return &Adapter{Table: t, Config: c, path: path, file: file}
}

// Scales returns what gives by what the product of a module is multiplied, whose matrices have
// that rank: alpha over rank, or over its root, both as patterns may give them to the module.
func (c *Config) Scales() (func(module string, rank int) (float64, error), error) {
	of, err := c.Patterns()
	if err != nil {
		return nil, err
	}
	return func(module string, rank int) (float64, error) {
		want, alpha := c.R, c.LoraAlpha
		if of != nil {
			want, alpha = of(module)
		}
		if want != int64(rank) {
			return 0, hint.Add(fmt.Errorf("%w: its rank is %d, the configuration says %d", tensor.ErrMalformed, rank, want),
				"adapter_config.json does not belong to these tensors")
		}
		if c.UseRSLoRA {
			return alpha / math.Sqrt(float64(want)), nil
		}
		return alpha / float64(want), nil
	}, nil
}

// literal returns a match for the key of nearly every pattern, at the end of a name: letters,
// and dots that stand for anything. It is nil for what is more of an expression.
func literal(key string) func(name string) bool {
	if strings.ContainsAny(key, `\+*?()|[]{}^$`) || !utf8.ValidString(key) {
		return nil
	}
	return func(name string) bool {
		at := len(name) - len(key)
		if at < 0 || at > 0 && name[at-1] != '.' {
			return false
		}
		for i := range len(key) {
			if key[i] != name[at+i] && (key[i] != '.' || name[at+i] == '\n' || name[at+i] >= utf8.RuneSelf) {
				return false
			}
		}
		return true
	}
}

// UnsupportedBut is Unsupported for who follows some of the keys that others must refuse.
func (c *Config) UnsupportedBut(follows ...string) error {
	less := *c
	less.other = maps.Clone(c.other)
	for _, k := range keys() {
		switch {
		case !slices.Contains(follows, k.name):
		case k.field == nil:
			delete(less.other, k.name)
		default:
			if err := json.Unmarshal([]byte(k.def), k.field(&less)); err != nil {
				return fmt.Errorf("%s: %w", k.name, err)
			}
		}
	}
	return less.Unsupported()
}

// repeats reports whether a key that PEFT does not have says what another one does: some
// trainers write alpha beside lora_alpha.
func (c *Config) repeats(name string, value jsontext.Value) bool {
	v, err := strconv.ParseFloat(string(value), 64)
	return name == "alpha" && err == nil && v == c.LoraAlpha
}

// Clone returns a copy that shares nothing that SetModules changes.
func (c *Config) Clone() *Config {
	out := *c
	out.other = maps.Clone(c.other)
	return &out
}

// ModuleScale is the rank of a module and by what its product is multiplied.
type ModuleScale struct {
	Module string
	Rank   int
	Scale  float64
}

// SetModules makes the configuration say the ranks and scales of these modules. Where they
// differ, r is the highest rank and patterns give the others theirs. Alpha is then scale
// times rank, without rsLoRA's root.
func (c *Config) SetModules(list []ModuleScale) {
	first := slices.MaxFunc(list, func(a, b ModuleScale) int { return a.Rank - b.Rank })
	c.R, c.LoraAlpha, c.UseRSLoRA = int64(first.Rank), alphaOf(first), false
	c.RankPattern, c.AlphaPattern = nil, nil
	for _, m := range list {
		if int64(m.Rank) != c.R {
			c.RankPattern = append(c.RankPattern, PatternEntry{keyOf(m.Module, list), float64(m.Rank)})
		}
		if a := alphaOf(m); a != c.LoraAlpha {
			c.AlphaPattern = append(c.AlphaPattern, PatternEntry{keyOf(m.Module, list), a})
		}
	}
}

// alphaOf returns the alpha that gives a module its scale.
func alphaOf(m ModuleScale) float64 { return m.Scale * float64(m.Rank) }

// keyOf returns the key of a pattern for one module alone. PEFT before 0.14 compares it with
// the whole name only, so it is the name unless that, as an expression, is another module's
// too or none's.
func keyOf(module string, list []ModuleScale) string {
	plain := literal(module)
	if plain == nil || slices.ContainsFunc(list, func(m ModuleScale) bool { return m.Module != module && plain(m.Module) }) {
		return "^" + regexp.QuoteMeta(module)
	}
	return module
}

// TargetsOf returns target_modules for modules: short names if all layers from the first on
// have the same, or else the names themselves.
func TargetsOf(modules []string) Modules {
	layers := make(map[string][]string) // by the name within a layer
	var short, whole []string
	most := int64(-1)
	for _, m := range modules {
		layer, rest, ok := cutLayer(m)
		if !ok {
			whole = append(whole, m)
			continue
		}
		if layers[rest] == nil {
			short = append(short, rest)
		}
		layers[rest] = append(layers[rest], m)
		most = max(most, layer)
	}
	for _, s := range short {
		if int64(len(layers[s])) != most+1 {
			return Modules{Names: slices.Sorted(slices.Values(modules))}
		}
	}
	return Modules{Names: slices.Sorted(slices.Values(append(short, whole...)))}
}

// cutLayer splits a module's name at the first number.
func cutLayer(module string) (layer int64, rest string, ok bool) {
	parts := strings.Split(module, ".")
	for i, p := range parts {
		if n, err := strconv.ParseInt(p, 10, 32); err == nil && n >= 0 && i+1 < len(parts) {
			return n, strings.Join(parts[i+1:], "."), true
		}
	}
	return 0, "", false
}

// OneAlpha returns the adapter with every module's scale an alpha over its rank, that alpha,
// which is what most modules have, and B multiplied by what others differ.
func OneAlpha(a *Adapter, list []ModuleScale) (*Adapter, float64, error) {
	count, alpha := make(map[float64]int), alphaOf(list[0])
	for _, m := range list {
		count[alphaOf(m)]++
	}
	for _, m := range list {
		if x := alphaOf(m); count[x] > count[alpha] && x != 0 {
			alpha = x
		}
	}
	if alpha == 0 {
		alpha = 1
	}
	by := make(map[string]float64)
	for _, m := range list {
		_, b := namesOf(m.Module, tensor.Has(a, m.Module+embeddingA))
		by[b] = alphaOf(m) / alpha
	}
	var entries []tensor.Entry
	for info := range a.All() {
		e := tensor.Forward(a, info, info.Name)
		if f, ok := by[info.Name]; ok && f != 1 {
			e = computed(a, info.Name, info, func(x []float32) []float32 { return scaled(x, f) })
		}
		entries = append(entries, e)
	}
	t, err := tensor.NewTable(a.Meta(), entries)
	if err != nil {
		return nil, 0, err
	}
	return NewAdapter(a.Config.Clone(), t, a.path, a.file), alpha, nil
}
