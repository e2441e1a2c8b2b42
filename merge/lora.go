package merge

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/tensor"
)

// LoRA is the low-rank adapter (Hu et al., 2021) with all that PEFT has beside
// it: W + scale * B·A, with A [rank, in] in MODULE.lora_A.weight and B [out, rank]
// in MODULE.lora_B.weight; embeddings, biases, DoRA's magnitudes, stacks of
// experts, and tensors or rows in place of the base's.
type LoRA struct{}

// Name implements Method.
func (LoRA) Name() string { return "lora" }

// Match implements Method.
func (LoRA) Match(base, adapter tensor.Source, codecs tensor.Codecs, cfg Config) (*Effect, error) {
	m := &matcher{
		adapter: adapter, codecs: codecs, cfg: cfg, cache: &cache{},
		zero: make(map[string]bool), steps: make(map[string][]Change), seen: make(map[string]string), nested: make(map[string][]int),
		effect: &Effect{Origins: make(map[string]string), arithmetic: cfg.Arithmetic, codecs: codecs},
	}
	var err error
	if m.parts, err = sortParts(adapter); err != nil {
		return nil, err
	}
	if m.base, err = replicate(base, cfg.Replication, m.effect); err != nil {
		return nil, err
	}
	m.names.has = func(name string) bool { return tensor.Has(m.base, name) }
	for _, step := range []func() error{m.scanAll, m.matchWhole, m.matchPairs, m.matchTokens, m.checkTargets, m.checkInitial} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	for _, target := range m.order {
		m.effect.Changes = append(m.effect.Changes, newChain(m.steps[target]))
	}
	m.effect.Base = m.base
	m.effect.Notes = append(m.effect.Notes, m.names.note()...)
	return m.effect, nil
}

// matcher finds for each part of an adapter what it changes.
type matcher struct {
	base    tensor.Source // with the layers, tensors and shapes that the adapter wants
	adapter tensor.Source
	codecs  tensor.Codecs
	cfg     Config
	cache   *cache

	parts *parts
	names names
	zero  map[string]bool // adapter tensors that hold nothing but zeros

	// steps are the changes of each tensor in their order, order the tensors in
	// that in which they came up.
	steps map[string][]Change
	order []string

	seen   map[string]string // adapter tensor by the base module that it is for, for doubles
	nested map[string][]int  // depths of the pairs of modules with parameters

	effect *Effect
}

func (m *matcher) note(format string, args ...any) {
	m.effect.Notes = append(m.effect.Notes, fmt.Sprintf(format, args...))
}

func (m *matcher) add(target string, c Change) {
	if m.steps[target] == nil {
		m.order = append(m.order, target)
	}
	m.steps[target] = append(m.steps[target], c)
}

// scanAll reads the adapter through before anything is written.
func (m *matcher) scanAll() error {
	for _, src := range []tensor.Source{m.adapter, m.cfg.Initial} {
		if src == nil {
			continue
		}
		for info := range src.All() {
			zero, err := scan(src, m.codecs, info.Name)
			if err != nil {
				return err
			}
			if src == m.adapter {
				m.zero[info.Name] = zero
			}
		}
	}
	return nil
}

// another is the error of an adapter tensor that has no place in the base.
func another(name, target string) error {
	return hint.Add(fmt.Errorf("adapter tensor %q: %w: the base has no tensor %q", name, tensor.ErrMalformed, target),
		"was the adapter trained on another model?")
}

// isHead reports whether a name is that of the head of a base that has none of
// its own.
func (m *matcher) isHead(name string) bool {
	return m.cfg.Head != "" && !tensor.Has(m.base, m.cfg.Head) && slices.Contains(spellings(name), m.cfg.Head)
}

// target returns the tensor of the base that an adapter tensor is for, by the
// name that the base's tensor would have in the adapter.
func (m *matcher) target(name, adapter string) (string, error) {
	if found, ok := m.names.find(name); ok {
		return found, nil
	}
	if m.isHead(name) {
		return m.cfg.Embedding, nil
	}
	return "", another(adapter, name)
}

// once notes that an adapter tensor is for something that only one may be for.
func (m *matcher) once(what, adapter string) error {
	if first, ok := m.seen[what]; ok {
		return fmt.Errorf("adapter tensors %q and %q: %w: both are for %s", first, adapter, tensor.ErrMalformed, what)
	}
	m.seen[what] = adapter
	return nil
}

// matchPairs finds the targets of the low-rank pairs. That of the head comes last,
// as it does when PEFT merges, where it may be for the same tensor as the
// embedding's.
func (m *matcher) matchPairs() error {
	head := func(p *pair) bool { return m.isHead(p.module + ".weight") }
	list := slices.Clone(m.parts.pairs)
	slices.SortStableFunc(list, func(p, q *pair) int {
		switch {
		case head(p) == head(q):
			return 0
		case head(p):
			return 1
		}
		return -1
	})
	embedding := false
	for _, p := range list {
		if names := m.parameters(p.module); len(names) > 0 {
			if err := m.matchParameter(p, names); err != nil {
				return err
			}
			continue
		}
		shared := head(p)
		if shared && embedding && m.cfg.TiedAdapter && m.cfg.Arithmetic == Once {
			m.note("the embedding's adapter is the head's too, which are one tensor: it is added once (PEFT's merge adds it twice)")
			continue
		}
		target, err := m.target(p.module+".weight", p.a)
		if err != nil {
			return err
		}
		embedding = embedding || target == m.cfg.Embedding
		if shared {
			m.note("the head is the embedding, so what the adapter adds to the head is added to the embedding too, as PEFT's merge does; --untie gives the head a tensor of its own")
		} else if target == m.cfg.Embedding && m.tied() && !m.cfg.TiedAdapter {
			m.note("the embedding is the head, so what the adapter adds to the embedding is added to the head too, as PEFT's merge does; --untie gives the head a tensor of its own")
		}
		if err := m.matchPair(p, target, shared); err != nil {
			return err
		}
	}
	return m.checkNested()
}

// tied reports whether head and embedding are one tensor.
func (m *matcher) tied() bool { return m.cfg.Head != "" && !tensor.Has(m.base, m.cfg.Head) }

// matchPair adds what the pair of a layer does to its weight and its bias.
func (m *matcher) matchPair(p *pair, target string, shared bool) error {
	what := fmt.Sprintf("%s%s", strings.TrimSuffix(target, ".weight"), strings.Repeat(baseLayer, p.depth))
	if shared {
		what = m.cfg.Head
	}
	if err := m.once(what, p.a); err != nil {
		return err
	}
	d, err := m.newPair(p, target)
	if err != nil {
		return err
	}
	if err := m.addDelta(p, d, p.embedding); err != nil {
		return err
	}
	return m.matchBias(p, strings.TrimSuffix(target, ".weight")+".bias")
}

// addDelta adds a sum, or what DoRA makes of it. early says that PEFT rounds the
// delta before it adds it.
func (m *matcher) addDelta(p *pair, d *lowRank, early bool) error {
	info, err := m.base.Info(d.target)
	if err != nil {
		return err
	}
	held := m.cfg.held(info)
	switch {
	case m.cfg.DoRA && p.magnitude == "":
		return hint.Add(fmt.Errorf("adapter tensor %q: %w: use_dora is set, and there is no %s beside it", p.a, tensor.ErrMalformed, suffixMagnitude),
			"adapter_config.json does not belong to these tensors")
	case !m.cfg.DoRA && p.magnitude != "":
		return hint.Add(fmt.Errorf("adapter tensor %q: %w: a magnitude, and use_dora is not set", p.magnitude, tensor.ErrMalformed),
			"adapter_config.json does not belong to these tensors")
	case p.magnitude != "":
		return m.addDoRA(p, d, info, held)
	case m.cfg.Arithmetic == Once:
		m.add(d.target, Sum(d))
	default:
		m.add(d.target, &rounded{delta: d, to: held, early: early || m.cfg.Arithmetic == PEFTSafe})
	}
	return nil
}

func (m *matcher) addDoRA(p *pair, d *lowRank, info tensor.Info, held tensor.DType) error {
	given, magnitude, err := m.codecs.ReadAll(m.adapter, p.magnitude)
	if err != nil {
		return err
	}
	c := &dora{delta: d, magnitude: magnitude, shape: info.Shape, columns: p.embedding || m.transposed(d.target), to: tensor.Invalid}
	outputs := d.rows
	if c.columns {
		outputs = d.cols
	}
	if len(magnitude) != outputs {
		return fmt.Errorf("adapter tensor %q: %w: its shape is %v, there are %d outputs", p.magnitude, tensor.ErrMalformed, given.Shape, outputs)
	}
	if m.cfg.Arithmetic != Once {
		c.to = held
	}
	base := m.base
	c.base = &lazyRows{open: func() (tensor.Rows, error) {
		_, rows, err := m.codecs.OpenFrom(base, d.target)
		return rows, err
	}}
	if before := m.steps[d.target]; len(before) > 0 {
		c.before = newChain(slices.Clone(before))
	}
	m.add(d.target, c)
	return nil
}

// matchBias adds what an adapter with lora_bias does to a bias.
func (m *matcher) matchBias(p *pair, target string) error {
	switch {
	case m.cfg.LoRABias && p.bias == "":
		return hint.Add(fmt.Errorf("adapter tensor %q: %w: lora_bias is set, and there is no %s beside it", p.b, tensor.ErrMalformed, suffixBias),
			"adapter_config.json does not belong to these tensors")
	case !m.cfg.LoRABias && p.bias != "":
		return hint.Add(fmt.Errorf("adapter tensor %q: %w: a bias, and lora_bias is not set", p.bias, tensor.ErrMalformed),
			"adapter_config.json does not belong to these tensors")
	case p.bias == "":
		return nil
	}
	info, err := m.base.Info(target)
	if err != nil {
		return hint.Add(fmt.Errorf("adapter tensor %q: %w: the layer of the base has no bias to add it to", p.bias, tensor.ErrUnsupported),
			"PEFT cannot merge such an adapter either; train it with lora_bias=False")
	}
	own, values, err := m.codecs.ReadAll(m.adapter, p.bias)
	if err != nil {
		return err
	}
	if !own.Shape.Equal(info.Shape) {
		return fmt.Errorf("adapter tensor %q: %w: its shape is %v, that of the base's %s %v", p.bias, tensor.ErrMalformed, own.Shape, target, info.Shape)
	}
	_, scale := m.cfg.of(p.module)
	v := &vector{target, values, scale}
	if m.cfg.Arithmetic == Once {
		m.add(target, Sum(v))
	} else {
		m.add(target, &rounded{delta: v, to: m.cfg.held(info)})
	}
	return nil
}

// checkInitial refuses what the initial adapter has beside the pairs.
func (m *matcher) checkInitial() error {
	if m.cfg.Initial == nil {
		return nil
	}
	known := make(map[string]bool)
	for _, p := range m.parts.pairs {
		known[p.a], known[p.b] = true, true
	}
	for info := range m.cfg.Initial.All() {
		if !known[info.Name] {
			return fmt.Errorf("the initial adapter's tensor %q: %w: the adapter has none of that name", info.Name, tensor.ErrMalformed)
		}
	}
	return nil
}

// checkTargets compares the modules that have tensors with those that the
// configuration means.
func (m *matcher) checkTargets() error {
	if m.cfg.Targeted == nil {
		return nil
	}
	have := make(map[string]bool) // by the base's names
	matched := make(map[string]bool)
	for _, p := range m.parts.pairs {
		found, _ := m.names.find(p.module + ".weight")
		base := strings.TrimSuffix(found, ".weight")
		have[base] = true
		for _, t := range m.cfg.Targets {
			matched[t] = matched[t] || base == t || p.module == t || strings.HasSuffix(base, "."+t) || strings.HasSuffix(p.module, "."+t)
		}
		if len(m.parameters(p.module)) > 0 || m.cfg.TiedAdapter && m.cfg.Head == found {
			continue
		}
		if !m.cfg.Targeted(p.module) && !m.cfg.Targeted(base) {
			return hint.Add(fmt.Errorf("adapter tensor %q: %w: the configuration does not mean its module to have an adapter", p.a, tensor.ErrMalformed),
				"adapter_config.json does not belong to these tensors; PEFT would ignore them")
		}
	}
	for _, name := range m.parts.whole {
		found, _ := m.names.find(strings.ReplaceAll(name, baseLayer, ""))
		have[strings.TrimSuffix(found, ".weight")] = true
	}
	var experts []string
	for info := range m.base.All() {
		module, ok := strings.CutSuffix(info.Name, ".weight")
		if !ok || len(info.Shape) < 2 || have[module] || !m.cfg.Targeted(module) {
			continue
		}
		if strings.Contains(module, ".experts.") {
			experts = append(experts, module) // one tensor, and no layer, since transformers 5
			continue
		}
		return hint.Add(fmt.Errorf("%w: the configuration means %q to have an adapter, of which there are no tensors", tensor.ErrMalformed, module),
			"the weights are incomplete, or adapter_config.json does not belong to them")
	}
	if len(experts) > 0 {
		m.note("the configuration could mean experts too, of which the adapter has no tensors: %s and %d others", experts[0], len(experts)-1)
	}
	for _, t := range slices.Sorted(maps.Keys(matched)) {
		if !matched[t] {
			m.note("the adapter has nothing of %s, which target_modules names", t)
		}
	}
	return nil
}
