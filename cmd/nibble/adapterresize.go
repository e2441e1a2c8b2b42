package main

import (
	"context"
	"fmt"
	"io"
	"math"

	"github.com/spf13/cobra"

	"github.com/seed18967229/nibble/formats/peft"
	"github.com/seed18967229/nibble/internal/fsx"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/memory"
	"github.com/seed18967229/nibble/merge/factors"
)

func (a *app) adapterResizeCommand() *cobra.Command {
	var o budgetFlags
	var base string
	cmd := &cobra.Command{
		Use:   "resize ADAPTER OUT (--rank R | --energy SHARE | --max-size SIZE)",
		Short: "Give an adapter a lower rank, as near to it as that rank allows",
		Long: `Cut each module of an adapter to its largest singular values, and write it as a
PEFT directory. The decomposition is of the factors and exact: the product is never
formed, and nothing is lost but what is printed, the norm of the difference over
that of what was added.

--energy keeps in each module the lowest rank with that share of the sum of the
squared singular values; --max-size spends numbers where they take away most of the
error. A module that keeps its rank is copied as it is.`,
		Example: "  nibble adapter resize adapters smaller --rank 8\n  nibble adapter resize adapters smaller --energy 0.95",
		Args:    exactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.adapterResize(cmd.Context(), args[0], args[1], base, &o)
		},
	}
	f := cmd.Flags()
	f.IntVar(&o.rank, "rank", 0, "highest rank of a module")
	f.Float64Var(&o.energy, "energy", 0, "share of its energy that each module keeps, as 0.95")
	f.Var(&o.maxSize, "max-size", "most bytes of factors")
	baseFlag(cmd, &base)
	return cmd
}

// adapterWritten is what commands that make an adapter end with.
type adapterWritten struct {
	Out     string        `json:"out"`
	Bytes   int64         `json:"bytes"`
	Was     int64         `json:"bytes_before,omitempty"`
	Norm    float64       `json:"norm"`
	Error   float64       `json:"relative_error"`
	Modules []*moduleSize `json:"modules"`
	Dropped []string      `json:"dropped,omitempty"`
	Whole   []string      `json:"stored_whole,omitempty"`
	Notes   []string      `json:"notes,omitempty"`
	PeakRSS int64         `json:"peak_rss"`

	exact bool // nothing was cut, so no error is spoken of
}

// moduleSize is what became of a module. Error is the norm of the difference over Norm, that
// of what should be added.
type moduleSize struct {
	Module string  `json:"module"`
	Was    int     `json:"rank_before"`
	Rank   int     `json:"rank"`
	Norm   float64 `json:"norm"`
	Error  float64 `json:"relative_error"`
}

// account completes the result from its modules.
func (r *adapterWritten) account() {
	var all, lost float64
	for _, m := range r.Modules {
		all += m.Norm * m.Norm
		lost += m.Error * m.Error * m.Norm * m.Norm
	}
	r.Norm = math.Sqrt(all)
	if all > 0 {
		r.Error = math.Sqrt(lost / all)
	}
	r.PeakRSS = memory.PeakRSS()
}

func (r *adapterWritten) text(w io.Writer) {
	fmt.Fprintf(w, "%s: %s in %s", r.Out, memory.FormatSize(r.Bytes), plural(len(r.Modules), "module"))
	if r.Was > 0 {
		fmt.Fprintf(w, ", %s before", memory.FormatSize(r.Was))
	}
	fmt.Fprintf(w, "; peak memory %s\n", memory.FormatSize(r.PeakRSS))
	fmt.Fprintf(w, "  %-52s %9s %5s %10s %9s\n", "module", "was rank", "rank", "norm", "error")
	for _, m := range r.Modules {
		fmt.Fprintf(w, "  %-52s %9d %5d %10.4g %9s\n", plain(m.Module), m.Was, m.Rank, m.Norm, share(m.Error))
	}
	if !r.exact {
		fmt.Fprintf(w, "  error of all that is added: %s of its norm %.5g\n", share(r.Error), r.Norm)
	}
	if len(r.Dropped) > 0 {
		fmt.Fprintf(w, "  left out: %s\n", listed(r.Dropped))
	}
	if len(r.Whole) > 0 {
		fmt.Fprintf(w, "  stored whole: %s\n", listed(r.Whole))
	}
	for _, n := range r.Notes {
		fmt.Fprintf(w, "  note: %s\n", n)
	}
}

// share writes a share.
func share(x float64) string {
	switch {
	case x == 0:
		return "0"
	case x < 1e-4:
		return fmt.Sprintf("%.1g %%", 100*x)
	}
	return fmt.Sprintf("%.2f %%", 100*x)
}

func (a *app) adapterResize(ctx context.Context, path, out, base string, o *budgetFlags) error {
	if o.rank == 0 && o.energy == 0 && o.maxSize == 0 {
		return badUsage(hint.Add(fmt.Errorf("it is not said what size the adapter is to have"), "give --rank, --energy or --max-size"))
	}
	budget, err := o.budget(0)
	if err != nil {
		return err
	}
	if err := fsx.CheckOutput(out, path); err != nil {
		return badUsage(err)
	}
	ad, f, err := openFactors(path, base, carried...)
	if err != nil {
		return err
	}
	defer ad.Close()
	d, err := a.newDraft(out)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := a.decompose(ctx, f, d); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	ranks := budget.Ranks(d.candidates())
	r := &adapterWritten{Out: out}
	c := ad.Config.Clone()
	var kept []string
	by := make(map[string]float64)
	for i, m := range d.modules {
		before := f.Modules[i].Rank
		if ranks[i] == 0 && budget.Params == 0 {
			ranks[i] = 1 // nothing is added, but PEFT has no rank 0
		}
		if ranks[i] == 0 {
			r.Dropped = append(r.Dropped, m.Name)
		} else {
			kept = append(kept, m.Name)
		}
		r.Was += 4 * f.Modules[i].Params()
		r.Bytes += 4 * int64(ranks[i]) * int64(m.Out+m.In)
		r.Modules = append(r.Modules, &moduleSize{Module: m.Name, Was: before, Rank: ranks[i], Norm: m.spectrum.Norm(), Error: m.spectrum.Lost(ranks[i])})
		by[m.Name] = f.Modules[i].Scale
		if keepsEnough(m, before, ranks[i], budget) {
			// As it is: to decompose it would only round.
			p, err := f.Read(codecs, &f.Modules[i])
			if err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
			if d.modules[i], err = d.store(f.Modules[i], p, m.spectrum); err != nil {
				return err
			}
			r.Bytes += 4 * int64(before-ranks[i]) * int64(m.Out+m.In)
			r.Modules[i].Rank, r.Modules[i].Error = before, 0
			ranks[i], by[m.Name] = before, 1
		}
	}
	if len(kept) == 0 {
		return badUsage(hint.Add(fmt.Errorf("--max-size %s has no room for a single rank", o.maxSize.String()), "give more"))
	}
	if len(r.Dropped) > 0 {
		c.TargetModules = peft.TargetsOf(kept)
	}
	d.carry(ctx, f, func(module string) float64 { return by[module] })
	for _, x := range d.rest {
		r.Bytes += 4 * x.info.Shape.Elems()
		r.Was += 4 * x.info.Shape.Elems()
		r.Whole = append(r.Whole, x.info.Name)
	}
	if err := a.writeDraft(ctx, d, out, c, ranks); err != nil {
		return err
	}
	if c.UseDoRA {
		r.Notes = append(r.Notes, "magnitudes of DoRA stay; the error is that of the product, before it is brought to their norm")
	}
	r.account()
	return a.print(r)
}

// keepsEnough reports whether a module may stay as it is: its rank is no more than it may have.
func keepsEnough(m *draftModule, before, rank int, b factors.Budget) bool {
	return rank >= before || b.Energy == 0 && b.Params == 0 && before <= b.Rank
}

// decompose puts the decompositions of all modules in a draft.
func (a *app) decompose(ctx context.Context, f *factors.Adapter, d *draft) error {
	return a.eachModule(ctx, "decompose", f, func(i int, p *factors.Pair) error {
		whole := p.Decompose()
		return d.add(f.Modules[i], factors.Cut(whole, whole.Rank), whole.Values)
	})
}
