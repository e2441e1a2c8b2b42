package recipe

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/merge/combine"
)

// Parse reads a file.
func Parse(text []byte) (*Recipe, error) {
	root, err := parse(text)
	if err != nil {
		return nil, err
	}
	p := &reader{recipe: &Recipe{params: make(settings)}}
	if err := p.document(root); err != nil {
		return nil, err
	}
	return p.recipe, nil
}

type reader struct {
	recipe    *Recipe
	tokenizer []field // what says where the tokenizer is from
}

// keys are those that a mapping may have, and what reads them.
type keys []struct {
	name string
	read func(f field) error
}

// mapping reads a mapping, each of its keys by what is said of it.
func (p *reader) mapping(n *node, what string, known keys) error {
	if n.kind != mapping {
		return fault(n.line, "%s is %v, where there must be a mapping", what, n.kind)
	}
	for _, f := range n.fields {
		i := slices.IndexFunc(known, func(k struct {
			name string
			read func(f field) error
		}) bool {
			return k.name == f.key
		})
		if i < 0 {
			var names []string
			for _, k := range known {
				names = append(names, k.name)
			}
			return hint.Add(fault(f.line, "unknown key %q in %s", f.key, what), "there are: %s", strings.Join(names, ", "))
		}
		if err := known[i].read(f); err != nil {
			return err
		}
	}
	return nil
}

func text(to *string) func(f field) error {
	return func(f field) error {
		if f.kind != scalar || f.text == "" {
			return fault(f.line, "%s: %v, where there must be text", f.key, f.kind)
		}
		*to = f.text
		return nil
	}
}

// keep has a value read once all others are known.
func keep(to **node) func(f field) error {
	return func(f field) error { *to = f.node; return nil }
}

func (p *reader) document(root *node) error {
	r := p.recipe
	var method, dtype, outDType string
	var models, adapters, slices_, params *node
	if err := p.mapping(root, "a recipe", keys{
		{"merge_method", text(&method)}, {"base_model", text(&r.Base)},
		{"models", keep(&models)}, {"adapters", keep(&adapters)}, {"slices", keep(&slices_)}, {"parameters", keep(&params)},
		{"dtype", text(&dtype)}, {"out_dtype", text(&outDType)},
		{"tokenizer_source", p.tokens}, {"tokenizer", p.tokens},
	}); err != nil {
		return err
	}
	if method == "" {
		return fault(root.line, "merge_method is missing")
	}
	var err error
	if r.Method, err = combine.ByName(method); err != nil {
		return err
	}
	for _, d := range []string{dtype, outDType} { // mergekit computes in the first; the second wins
		if d != "" {
			if r.DType = strings.TrimPrefix(d, "torch."); !slices.Contains(dtypes, r.DType) {
				return hint.Add(fmt.Errorf("dtype %q is none that a model is stored in here", d), "there are: %s", strings.Join(dtypes, ", "))
			}
		}
	}
	if r.params, err = p.settings(params); err != nil {
		return err
	}
	switch {
	case slices_ != nil && (models != nil || adapters != nil):
		return fault(slices_.line, "slices beside models or adapters: there may be one of them")
	case slices_ != nil:
		err = p.slices(slices_)
	case models == nil && adapters == nil:
		return fault(root.line, "neither models nor adapters nor slices are there")
	default:
		err = p.parts(models, adapters)
	}
	if err != nil {
		return err
	}
	return p.checkTokenizer()
}

var dtypes = []string{"float32", "float16", "bfloat16"}

// tokens keeps what says where the tokenizer is from.
func (p *reader) tokens(f field) error {
	if f.kind != mapping {
		p.tokenizer = append(p.tokenizer, f)
		return nil
	}
	return p.mapping(f.node, f.key, keys{{"source", p.tokens}})
}

// checkTokenizer returns an error if the tokenizer is to be another than the base's, or the first
// model's if there is no base: that one's files are copied.
func (p *reader) checkTokenizer() error {
	r := p.recipe
	from := r.Base
	if from == "" {
		from = r.Parts[0].Path
	}
	for _, f := range p.tokenizer {
		if f.kind != scalar || f.text != "base" && filepath.Clean(f.text) != filepath.Clean(from) {
			return hint.Add(fault(f.line, "%s: the tokenizer is always that of %s here", f.key, from), "models must share one vocabulary")
		}
	}
	return nil
}

// parts reads lists of models and of adapters.
func (p *reader) parts(models, adapters *node) error {
	all := slice{}
	for _, of := range []struct {
		node    *node
		key     string
		adapter bool
	}{{models, "model", false}, {adapters, "adapter", true}} {
		if of.node == nil {
			continue
		}
		if of.node.kind != list {
			return fault(of.node.line, "%ss: %v, where there must be a list", of.key, of.node.kind)
		}
		for _, n := range of.node.list {
			part, params := Part{Adapter: of.adapter}, (*node)(nil)
			if err := p.mapping(n, of.key+"s", keys{{of.key, text(&part.Path)}, {"parameters", keep(&params)}}); err != nil {
				return err
			}
			if part.Path == "" {
				return fault(n.line, "%s is missing", of.key)
			}
			s, err := p.settings(params)
			if err != nil {
				return err
			}
			p.recipe.Parts, all.each = append(p.recipe.Parts, part), append(all.each, s)
		}
	}
	p.recipe.slices = []slice{all}
	if len(p.recipe.Parts) == 0 {
		return fmt.Errorf("the lists of models and adapters are empty")
	}
	return nil
}

// slices reads the slices of a whole model.
func (p *reader) slices(n *node) error {
	r := p.recipe
	if n.kind != list || len(n.list) == 0 {
		return fault(n.line, "slices: %v, where there must be a list", n.kind)
	}
	for i, x := range n.list {
		var s slice
		var sources, params *node
		err := p.mapping(x, "slices", keys{{"sources", keep(&sources)}, {"parameters", keep(&params)}})
		if err == nil {
			s.params, err = p.settings(params)
		}
		if err != nil {
			return err
		}
		if sources == nil || sources.kind != list || len(sources.list) == 0 {
			return fault(x.line, "a slice needs a list of sources")
		}
		var parts []Part
		for k, y := range sources.list {
			var part Part
			var span [2]int
			var own *node
			if err := p.mapping(y, "sources", keys{{"model", text(&part.Path)}, {"parameters", keep(&own)}, {"layer_range", layers(&span)}}); err != nil {
				return err
			}
			if part.Path == "" || span[1] == 0 {
				return fault(y.line, "a source needs model and layer_range")
			}
			if k == 0 {
				s.from, s.to = span[0], span[1]
			}
			before := 0
			if i > 0 {
				before = r.slices[i-1].to
			}
			if span != [2]int{s.from, s.to} || s.from != before {
				return hint.Add(fault(y.line, "layer_range [%d, %d], where layer %d of every model must be next", span[0], span[1], before),
					"slices must be the whole model, each layer in its place; stacking layers is not done")
			}
			each, err := p.settings(own)
			if err != nil {
				return err
			}
			parts, s.each = append(parts, part), append(s.each, each)
		}
		if i > 0 && !slices.Equal(parts, r.Parts) {
			return hint.Add(fault(x.line, "a slice of other models than the one before"), "slices must have the same sources in the same order")
		}
		r.Parts, r.slices = parts, append(r.slices, s)
	}
	return nil
}

func layers(to *[2]int) func(f field) error {
	return func(f field) error {
		if f.kind == list && len(f.list) == 2 {
			a, ok := f.list[0].value().(float64)
			b, also := f.list[1].value().(float64)
			if ok && also && a >= 0 && b > a && b < 1<<20 && a == float64(int(a)) && b == float64(int(b)) {
				*to = [2]int{int(a), int(b)}
				return nil
			}
		}
		return fault(f.line, "layer_range must be two numbers, the first layer and the one after the last")
	}
}

// settings reads parameters; nil is none.
func (p *reader) settings(n *node) (settings, error) {
	out := make(settings)
	if n == nil || n.kind == null {
		return out, nil
	}
	if n.kind != mapping {
		return nil, fault(n.line, "parameters: %v, where there must be a mapping", n.kind)
	}
	for _, f := range n.fields {
		s, err := readSetting(f)
		if err == nil {
			err = p.recipe.check(f.key, s)
		}
		if err != nil {
			return nil, fault(f.line, "%w", err)
		}
		out[f.key] = s
	}
	return out, nil
}

func readSetting(f field) (*setting, error) {
	if f.kind == list && slices.ContainsFunc(f.list, func(n *node) bool { return n.kind == mapping }) {
		s := &setting{cases: []filtered{}}
		for _, n := range f.list {
			c, err := readCase(f.key, n)
			if err != nil {
				return nil, err
			}
			s.cases = append(s.cases, c)
		}
		return s, nil
	}
	v, err := readValues(f.key, f.node)
	return &setting{values: v}, err
}

func readCase(of string, n *node) (filtered, error) {
	c := filtered{}
	if n.kind != mapping {
		return c, fmt.Errorf("%s: %v among filters", of, n.kind)
	}
	for _, f := range n.fields {
		var err error
		switch {
		case f.key == "filter" && (f.kind == scalar || f.kind == null):
			c.filter = f.text
		case f.key == "value":
			c.values, err = readValues(of, f.node)
		default:
			err = hint.Add(fmt.Errorf("%s: unknown key %q", of, f.key), "a case has filter and value")
		}
		if err != nil {
			return c, err
		}
	}
	if c.values == nil {
		return c, fmt.Errorf("%s: a case without a value", of)
	}
	return c, nil
}

func readValues(of string, n *node) ([]any, error) {
	if n.kind == scalar {
		return []any{n.value()}, nil
	}
	if n.kind != list || len(n.list) == 0 {
		return nil, fmt.Errorf("%s: %v, where there must be a value or a list of them", of, n.kind)
	}
	var out []any
	for _, x := range n.list {
		if x.kind != scalar {
			return nil, fmt.Errorf("%s: %v in a list of values", of, x.kind)
		}
		out = append(out, x.value())
	}
	return out, nil
}
