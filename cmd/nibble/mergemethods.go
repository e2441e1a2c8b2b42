package main

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/merge"
	"github.com/seed18967229/nibble/merge/combine"
	"github.com/seed18967229/nibble/merge/recipe"
)

// methodOptions are the flags of merge that say how several are combined.
type methodOptions struct {
	method, recipe string
	models         []string
	params         []*paramFlag

	// plan is what they say; nil for the sum of adapters, which needs no method.
	plan *recipe.Recipe
}

// paramFlag is the flag of a parameter of a method.
type paramFlag struct{ name, text string }

// sum is the method of adapters that are added.
const sum = "linear"

// notFlags are parameters that have no flag: weights stand behind what they are for.
var notFlags = []string{"weight", "int8_mask"}

// flags adds those that say how several are combined.
func (o *methodOptions) flags(f *pflag.FlagSet) {
	f.StringVar(&o.method, "method", "", "how several are combined: "+strings.Join(methodNames(), ", ")+" (default linear)")
	f.StringVar(&o.recipe, "recipe", "", "a file that says what is merged and how, as mergekit's configurations do")
	f.StringArrayVar(&o.models, "model", nil, "a fine-tuned model, with :weight if not 1; may be repeated")
	o.paramFlags(f)
}

// paramFlags adds those of the methods' parameters, but for some.
func (o *methodOptions) paramFlags(f *pflag.FlagSet, but ...string) {
	for _, q := range combine.Parameters() {
		if !slices.Contains(notFlags, q.Name) && !slices.Contains(but, q.Name) {
			p := &paramFlag{name: q.Name}
			o.params = append(o.params, p)
			f.StringVar(&p.text, p.flag(), "", q.About)
		}
	}
}

func (p *paramFlag) flag() string { return strings.ReplaceAll(p.name, "_", "-") }

func methodNames() []string {
	var names []string
	for _, m := range combine.Methods() {
		names = append(names, m.Name)
	}
	return names
}

// given returns the flags of parameters that are set.
func (o *methodOptions) given() []*paramFlag {
	return slices.DeleteFunc(slices.Clone(o.params), func(p *paramFlag) bool { return p.text == "" })
}

// combined makes the plan, and returns the adapters of it and all paths that are read.
func (o *mergeOptions) combined(arithmetic merge.Arithmetic) (list []weighted, inputs []string, err error) {
	if o.plan, err = o.fromFile(o.base, o.adapters); o.plan == nil && err == nil {
		o.plan, err = o.fromFlags(o.base, o.adapters)
	}
	if err != nil {
		return nil, nil, err
	}
	if o.plan == nil {
		return o.added()
	}
	if err := o.plan.Plan(); err != nil {
		return nil, nil, badUsage(err)
	}
	if arithmetic != merge.Once {
		return nil, nil, badUsage(hint.Add(fmt.Errorf("--arithmetic %s is for the sum of adapters", o.arithmetic), "PEFT's ways to combine adapters are the methods that begin with peft-"))
	}
	o.base = host(o.plan)
	if o.output.dtype == "auto" && o.plan.DType != "" {
		o.output.dtype = outTypes[o.plan.DType]
	}
	inputs = []string{o.base}
	for _, p := range o.plan.Parts {
		if p.Adapter {
			list = append(list, weighted{p.Path, 1}) // the method has the weights
		}
		inputs = append(inputs, p.Path)
	}
	return list, inputs, nil
}

// added returns the adapters of a sum.
func (o *mergeOptions) added() (list []weighted, inputs []string, err error) {
	missing := ""
	switch {
	case len(o.adapters) == 0:
		missing = "adapter"
	case o.base == "":
		missing = "base"
	}
	if missing != "" {
		return nil, nil, badUsage(hint.Add(fmt.Errorf("--%s is missing", missing), "nibble merge --help has an example"))
	}
	inputs = []string{o.base}
	for _, s := range o.adapters {
		w, err := parseWeighted(s)
		if err != nil {
			return nil, nil, err
		}
		list, inputs = append(list, w), append(inputs, w.path)
	}
	return list, inputs, nil
}

func (o *methodOptions) fromFile(base string, adapters []string) (*recipe.Recipe, error) {
	if o.recipe == "" {
		return nil, nil
	}
	beside := ""
	switch set := o.given(); {
	case o.method != "":
		beside = "method"
	case len(adapters) > 0:
		beside = "adapter"
	case len(o.models) > 0:
		beside = "model"
	case len(set) > 0:
		beside = set[0].flag()
	}
	if beside != "" {
		return nil, badUsage(hint.Add(fmt.Errorf("--%s beside --recipe, which says that itself", beside), "write it into %s", o.recipe))
	}
	text, err := os.ReadFile(o.recipe)
	if err != nil {
		return nil, badUsage(err)
	}
	r, err := recipe.Parse(text)
	if err != nil {
		return nil, badUsage(fmt.Errorf("%s: %w", o.recipe, err))
	}
	if base != "" {
		r.Base = base
	}
	return r, nil
}

func (o *methodOptions) fromFlags(base string, adapters []string) (*recipe.Recipe, error) {
	m, err := combine.ByName(cmp.Or(o.method, sum))
	if err != nil {
		return nil, badUsage(err)
	}
	set := o.given()
	if m.Name == sum && len(o.models) == 0 && len(set) == 0 {
		return nil, nil
	}
	var parts []recipe.Part
	var weights []float64
	for _, list := range []struct {
		of      []string
		flag    string
		adapter bool
	}{{o.models, "model", false}, {adapters, "adapter", true}} {
		for _, s := range list.of {
			w, err := parseWeighted(s)
			if err != nil {
				return nil, err
			}
			parts, weights = append(parts, recipe.Part{Path: w.path, Adapter: list.adapter}), append(weights, w.weight)
		}
	}
	r := recipe.New(m, base, parts)
	for i, w := range weights {
		if w == 1 {
			continue
		}
		if err := r.Set(i, "weight", w); err != nil {
			return nil, badUsage(fmt.Errorf("%s: %w", parts[i].Path, err))
		}
	}
	for _, p := range set {
		if err := r.Set(-1, p.name, recipe.Value(p.text)); err != nil {
			return nil, badUsage(fmt.Errorf("--%s %s: %w", p.flag(), p.text, err))
		}
	}
	return r, nil
}
