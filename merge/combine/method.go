package combine

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/merge/factors"
	"github.com/seed18967229/nibble/tensor"
)

// A Method makes one tensor of several.
type Method struct {
	Name string

	// About says in a few words what it does.
	About string

	// Uses names the parameters it takes.
	Uses []string

	// Least and Most are how many inputs it takes; Most is 0 where any number will do.
	Least, Most int

	// Absolute says that it combines weights as well as differences from a base.
	Absolute bool

	// LowRank says that it combines the factors of adapters, and so nothing else that is changed.
	LowRank bool

	// check returns an error for parameters that do not go together.
	check func(each []Each) error

	normalize bool
	rescale   Rescale

	prepare func(t *task) (tensor.Rows, error)
}

// task is one tensor that is made.
type task struct {
	name   string
	shape  tensor.Shape
	inputs []*vector // nil for zeros
	params *Params
}

// Methods returns every method there is, the default first.
func Methods() []Method {
	sum := []string{"weight", "lambda", "normalize"}
	sparse := func(more ...string) []string {
		return append(append([]string{"density", "rescale"}, sum...), more...)
	}
	return []Method{
		{Name: "linear", About: "the exact weighted sum; of models without a base the weighted mean", Uses: []string{"weight", "normalize"},
			Least: 1, Absolute: true, prepare: mixed(nil, weighted)},
		{Name: "task_arithmetic", About: "the weighted sum of the differences, times lambda", Uses: sum,
			Least: 1, prepare: mixed(nil, weighted)},
		{Name: "ties", About: "the largest of each, and of those the ones that agree on a sign", Uses: sparse("majority_sign_method"),
			Least: 1, normalize: true, prepare: mixed(smallest, elected)},
		{Name: "dare_linear", About: "a random part of each, rescaled, summed", Uses: sparse("seed"),
			Least: 1, rescale: RescaleL1, prepare: mixed(atRandom, weighted)},
		{Name: "dare_ties", About: "a random part of each, rescaled, and of those the ones that agree on a sign", Uses: sparse("seed", "majority_sign_method"),
			Least: 1, rescale: RescaleL1, prepare: mixed(atRandom, elected)},
		{Name: "magnitude_prune", About: "the largest of each, summed", Uses: sparse(),
			Least: 1, prepare: mixed(smallest, weighted)},
		{Name: "breadcrumbs", About: "neither the largest nor the smallest of each, summed", Uses: sparse("gamma"),
			Least: 1, prepare: mixed(outliers, weighted)},
		{Name: "breadcrumbs_ties", About: "neither the largest nor the smallest of each, and of those the ones that agree on a sign", Uses: sparse("gamma", "majority_sign_method"),
			Least: 1, prepare: mixed(outliers, elected)},
		{Name: "della", About: "a random part of each, large ones rather than small, and of those the ones that agree on a sign", Uses: sparse("seed", "epsilon", "majority_sign_method"),
			Least: 1, normalize: true, rescale: RescaleL1, check: spreads, prepare: mixed(byRank, elected)},
		{Name: "della_linear", About: "a random part of each, large ones rather than small, summed", Uses: sparse("seed", "epsilon"),
			Least: 1, rescale: RescaleL1, check: spreads, prepare: mixed(byRank, weighted)},
		{Name: "slerp", About: "between two, on a great circle", Uses: []string{"t"},
			Least: 2, Most: 2, Absolute: true, prepare: between},
		{Name: "model_stock", About: "the mean, nearer to the base the more they disagree", Uses: []string{"filter_wise"},
			Least: 2, prepare: stock},
		byFactors("cat", "weight"),
		byFactors("svd", "weight", "rank"),
		byFactors("peft-linear", "weight"),
		byFactors("peft-ties", "weight", "density", "majority_sign_method"),
		byFactors("peft-dare_linear", "weight", "density", "seed"),
		byFactors("peft-dare_ties", "weight", "density", "seed", "majority_sign_method"),
		byFactors("peft-magnitude_prune", "weight", "density"),
	}
}

// byFactors is a method of package factors.
func byFactors(name string, uses ...string) Method {
	f, err := factors.ByName(name)
	if err != nil {
		panic("combine: " + err.Error())
	}
	return Method{Name: name, About: f.About, Uses: uses, Least: 1, LowRank: true, check: oneDensity, prepare: ofFactors(f)}
}

// ByName returns a method, or an error that lists them.
func ByName(name string) (*Method, error) {
	all := Methods()
	if i := slices.IndexFunc(all, func(m Method) bool { return m.Name == name }); i >= 0 {
		return &all[i], nil
	}
	var names []string
	for _, m := range all {
		names = append(names, m.Name)
	}
	return nil, hint.Add(fmt.Errorf("no method %q", name), "there are: %s", strings.Join(names, ", "))
}

// Defaults returns the parameters of n inputs when nothing is said of them; absolute are weights
// that are no differences from a base.
func (m *Method) Defaults(n int, absolute bool) Params {
	p := Params{Each: make([]Each, n), Lambda: 1, T: 0.5, Normalize: m.normalize || absolute && m.Name == "linear", Rescale: m.rescale}
	for i := range p.Each {
		p.Each[i] = Each{Weight: 1, Density: 1, Gamma: 0.01, Epsilon: 0.15}
	}
	return p
}

// Check returns an error if the method cannot combine n inputs.
func (m *Method) Check(n int) error {
	switch {
	case m.Most > 0 && n > m.Most:
		return fmt.Errorf("%s combines at most %d, not %d", m.Name, m.Most, n)
	case n < m.Least:
		return fmt.Errorf("%s combines at least %d, not %d", m.Name, m.Least, n)
	}
	return nil
}

// Parameter returns a parameter that the method takes, or that makes no difference to any.
func (m *Method) Parameter(name string) (*Parameter, error) {
	if name == idle || slices.Contains(m.Uses, name) {
		return ParameterByName(name), nil
	}
	fault := fmt.Errorf("unknown parameter %q", name)
	if ParameterByName(name) != nil {
		fault = fmt.Errorf("%s takes no %s", m.Name, name)
	}
	return nil, hint.Add(fault, "%s takes: %s", m.Name, strings.Join(m.Uses, ", "))
}

// Combine returns the rows of a tensor that is made of inputs of its shape, nil for one that
// has zeros. Nothing is read before a row is.
func (m *Method) Combine(name string, shape tensor.Shape, inputs []tensor.Rows, p Params) (tensor.Rows, error) {
	if err := m.Check(len(inputs)); err != nil {
		return nil, err
	}
	t := &task{name: name, shape: shape, params: &p, inputs: make([]*vector, len(inputs))}
	if p.uniform == nil {
		p.uniform = func(input int, target string) uniform { return draw(p.Seed, input, target) }
	}
	if m.check != nil {
		if err := m.check(p.Each); err != nil {
			return nil, fmt.Errorf("tensor %q: %w", name, err)
		}
	}
	for i, rows := range inputs {
		if rows == nil {
			continue
		}
		if m.LowRank {
			if err := lowRank(m.Name, rows); err != nil {
				return nil, fmt.Errorf("tensor %q: %w", name, err)
			}
		}
		t.inputs[i] = &vector{Each: p.Each[i], rows: rows, shape: shape, rescale: p.Rescale, chance: p.uniform(i, name)}
	}
	return &opened{open: sync.OnceValues(func() (tensor.Rows, error) { return m.prepare(t) })}, nil
}
