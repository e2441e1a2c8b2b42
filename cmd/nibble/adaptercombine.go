package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/seed18967229/nibble/formats/peft"
	"github.com/seed18967229/nibble/internal/fsx"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/merge/factors"
	"github.com/seed18967229/nibble/tensor"
)

// combineOptions are the flags of adapter combine.
type combineOptions struct {
	out, method, base string
	rank              int
	params            methodOptions
}

func (a *app) adapterCombineCommand() *cobra.Command {
	var o combineOptions
	var about strings.Builder
	for _, m := range factors.Methods() {
		fmt.Fprintf(&about, "  %-21s %s\n", m.Name, m.About)
	}
	cmd := &cobra.Command{
		Use:   "combine ADAPTER[:weight] ADAPTER[:weight] ... --out OUT",
		Short: "Make one adapter of several",
		Long: `Make an adapter that adds what several add together, each times its weight, and
write it as a PEFT directory. Ranks, scales and modules may differ.

` + about.String() + `
The methods of PEFT work on A and B apart from each other, as its
add_weighted_adapter does, and are there to give what it gives. Others combine what
is added itself, as nibble merge --method does, and cut it to --rank; the error is
the distance to what they make:

  ` + strings.Join(wholeMethods(), ", "),
		Example: "  nibble adapter combine style:0.7 facts:0.3 --out both\n  nibble adapter combine style facts --out both --method ties --density 0.3 --rank 16",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return badUsage(hint.Add(fmt.Errorf("no adapters are given"), "usage: %s", cmd.UseLine()))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return a.adapterCombine(cmd.Context(), args, &o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.out, "out", "", "where to write the adapter")
	f.StringVar(&o.method, "method", factors.Methods()[0].Name, "how: see above")
	f.IntVar(&o.rank, "rank", 0, "highest rank of a module, with methods that cut (default: that of the largest adapter)")
	o.params.paramFlags(f, "rank")
	baseFlag(cmd, &o.base)
	need(cmd, "out")
	return cmd
}

// combined is one of the adapters.
type combined struct {
	weighted
	*peft.Adapter
	factors *factors.Adapter
	modules map[string]*factors.Module
}

func (a *app) adapterCombine(ctx context.Context, args []string, o *combineOptions) (err error) {
	method, err := o.combiner(ctx, len(args))
	if err != nil {
		return err
	}
	var list []*combined
	defer func() {
		for _, x := range list {
			err = errors.Join(err, x.Close())
		}
	}()
	for _, arg := range args {
		w, err := parseWeighted(arg)
		if err != nil {
			return err
		}
		if err := fsx.CheckOutput(o.out, w.path); err != nil {
			return badUsage(err)
		}
		ad, f, err := openFactors(w.path, o.base, "modules_to_save", "bias")
		if err != nil {
			return err
		}
		x := &combined{weighted: w, Adapter: ad, factors: f, modules: make(map[string]*factors.Module)}
		list = append(list, x)
		for i := range f.Modules {
			x.modules[f.Modules[i].Name] = &f.Modules[i]
		}
	}
	r := &adapterWritten{Out: o.out, exact: method.exact}
	c, err := combinedConfig(list, r)
	if err != nil {
		return err
	}
	d, err := a.newDraft(o.out)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := a.combine(ctx, list, method, d, r); err != nil {
		return err
	}
	if err := combineRest(ctx, list, d, c); err != nil {
		return err
	}
	var modules []string
	ranks := make([]int, len(d.modules))
	for i, m := range d.modules {
		modules = append(modules, m.Name)
		ranks[i] = m.Rank
		r.Bytes += 4 * m.Params()
	}
	for _, x := range d.rest {
		r.Bytes += 4 * x.info.Shape.Elems()
		r.Whole = append(r.Whole, x.info.Name)
	}
	c.TargetModules = combinedTargets(list, modules)
	if err := a.writeDraft(ctx, d, o.out, c, ranks); err != nil {
		return err
	}
	r.account()
	return a.print(r)
}

// combinedConfig returns the configuration of what is made of several adapters, and notes
// in what they differ.
func combinedConfig(list []*combined, r *adapterWritten) (*peft.Config, error) {
	c := peft.NewConfig()
	first := list[0].Config
	c.TaskType, c.BaseModel, c.Revision, c.FanInFanOut = first.TaskType, first.BaseModel, first.Revision, first.FanInFanOut
	for _, x := range list[1:] {
		if x.Config.FanInFanOut != c.FanInFanOut {
			return nil, fmt.Errorf("%s: %w: fan_in_fan_out is %v, that of %s is not: they are not for one model", x.path, tensor.ErrUnsupported, x.Config.FanInFanOut, list[0].path)
		}
		if x.Config.BaseModel != c.BaseModel {
			r.Notes = append(r.Notes, fmt.Sprintf("%s says that it is for %q, %s for %q", list[0].path, c.BaseModel, x.path, x.Config.BaseModel))
		}
	}
	return c, nil
}

// combinedTargets returns target_modules: those of the adapters if they have the same, for
// what they stand for then is what is here.
func combinedTargets(list []*combined, modules []string) peft.Modules {
	first := list[0].Config.TargetModules
	for _, x := range list {
		own := x.Config.TargetModules
		if len(x.modules) != len(modules) || own.Regex != first.Regex || !slices.Equal(slices.Sorted(slices.Values(own.Names)), slices.Sorted(slices.Values(first.Names))) ||
			len(x.Config.LayersToTransform) > 0 || len(x.Config.ExcludeModules.Names) > 0 || x.Config.ExcludeModules.Regex != "" {
			return peft.TargetsOf(modules)
		}
	}
	return first
}

// combine makes the pairs, module by module.
func (a *app) combine(ctx context.Context, list []*combined, method *combiner, d *draft, r *adapterWritten) error {
	var all []factors.Module
	seen := make(map[string]bool)
	for _, x := range list {
		for _, m := range x.factors.Modules {
			if !seen[m.Name] {
				seen[m.Name] = true
				all = append(all, m)
			}
		}
	}
	slices.SortStableFunc(all, func(x, y factors.Module) int { return factors.ByNumbers(x.Name, y.Name) })
	bar := a.progress("combine", int64(len(all)), itemsUnit)
	defer bar.stop()
	for i, m := range all {
		if err := ctx.Err(); err != nil {
			return err
		}
		var parts []factors.Part
		most := 0
		for _, x := range list {
			own := x.modules[m.Name]
			if own == nil {
				if method.zeros {
					parts = append(parts, factors.Part{Weight: x.weight})
				}
				continue
			}
			p, err := x.factors.Read(codecs, own)
			if err != nil {
				return fmt.Errorf("%s: %w", x.path, err)
			}
			if own.DoRA || own.Bias || own.Embedding != m.Embedding || !slices.Equal(own.A.Shape[1:], m.A.Shape[1:]) {
				return fmt.Errorf("%s: module %s: %w: it has DoRA, a bias, or another kind of layer than in another adapter", x.path, m.Name, tensor.ErrUnsupported)
			}
			parts = append(parts, factors.Part{Pair: p, Weight: x.weight})
			most = max(most, own.Rank)
		}
		p, norm, apart, err := method.combine(m.Name, i, parts)
		if err != nil {
			return fmt.Errorf("module %s: %w", m.Name, err)
		}
		r.Modules = append(r.Modules, &moduleSize{Module: m.Name, Was: most, Rank: p.Rank, Norm: norm, Error: apart})
		if err := d.add(m, p, nil); err != nil {
			return err
		}
		bar.add(1)
	}
	return nil
}

// combineRest carries over what is stored whole: a replacement of a weight can be no part of
// a sum, so only one adapter may have it, at its own weight, or all the same.
func combineRest(ctx context.Context, list []*combined, d *draft, c *peft.Config) error {
	from := make(map[string]*combined)
	for _, x := range list {
		for _, info := range x.factors.Rest {
			first := from[info.Name]
			if first != nil {
				same, err := sameValues(first.Adapter, x.Adapter, info.Name)
				if err != nil {
					return err
				}
				if !same {
					return hint.Add(fmt.Errorf("%s: adapter tensor %q: %w: %s has another one, and both replace what the base has", x.path, info.Name, tensor.ErrUnsupported, first.path),
						"merge one of them into the base")
				}
				continue
			}
			if x.weight != 1 {
				return hint.Add(fmt.Errorf("%s: adapter tensor %q: %w: it replaces what the base has, which has no weight of %v", x.path, info.Name, tensor.ErrUnsupported, x.weight),
					"merge the adapter into the base, at any weight")
			}
			from[info.Name] = x
			d.copied(ctx, x.factors.Source, info, info.Name, 1)
		}
		for _, m := range x.Config.ModulesToSave {
			if !slices.Contains(c.ModulesToSave, m) {
				c.ModulesToSave = append(c.ModulesToSave, m)
			}
		}
		if x.Config.Bias != "none" {
			c.Bias = "all"
		}
	}
	return nil
}

// sameValues reports whether two adapters store the same under a name.
func sameValues(x, y tensor.Source, name string) (bool, error) {
	_, a, err := codecs.ReadAll(x, name)
	if err != nil {
		return false, err
	}
	_, b, err := codecs.ReadAll(y, name)
	if err != nil {
		return false, err
	}
	return slices.Equal(a, b), nil
}
