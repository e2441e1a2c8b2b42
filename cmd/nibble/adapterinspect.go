package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/seed18967229/nibble/formats"
	"github.com/seed18967229/nibble/formats/convert"
	"github.com/seed18967229/nibble/formats/peft"
	"github.com/seed18967229/nibble/internal/memory"
	"github.com/seed18967229/nibble/merge/factors"
)

func (a *app) adapterInspectCommand() *cobra.Command {
	var base string
	cmd := &cobra.Command{
		Use:   "inspect ADAPTER",
		Short: "Show what an adapter is, and what it does to each module",
		Long: `Show an adapter's rank, alpha, targets and base, and of each module the norm of what
is added to the weight, scale * B·A, and how many ranks of it are in use:

  entropy   e to the entropy of the singular values as shares of their sum
  90%, 99%  how many singular values have that share of the energy, the sum of
            their squares

Of DoRA what is added depends on the weight; the norm is that of the product.`,
		Example: "  nibble adapter inspect adapters\n  nibble adapter inspect lora.gguf --json",
		Args:    exactArgs(1),
		RunE:    func(cmd *cobra.Command, args []string) error { return a.adapterInspect(cmd.Context(), args[0], base) },
	}
	baseFlag(cmd, &base)
	return cmd
}

// baseFlag adds the flag of commands that may need the model that an adapter is for.
func baseFlag(cmd *cobra.Command, to *string) {
	cmd.Flags().StringVar(to, "base", "", "the model that the adapter is for, whose config.json is enough: for GGUF, and to read kohya's names")
}

type adapterInspectResult struct {
	Path   string `json:"path"`
	Format string `json:"format"`
	adapterFacts
	UseRSLoRA  bool           `json:"use_rslora"`
	UseDoRA    bool           `json:"use_dora"`
	Parameters int64          `json:"parameters"`
	Bytes      int64          `json:"bytes"`
	Norm       float64        `json:"norm"`
	Modules    []*moduleFacts `json:"modules"`

	// Whole are the tensors that are no factors.
	Whole []tensorFacts `json:"whole,omitempty"`

	// NotMerged is why nibble would not merge the adapter as it is.
	NotMerged string `json:"not_merged,omitempty"`
}

// moduleFacts are of one module. Norm is the Frobenius norm of the delta, Spectral its
// largest singular value.
type moduleFacts struct {
	Module   string  `json:"module"`
	Out      int     `json:"out"`
	In       int     `json:"in"`
	Rank     int     `json:"rank"`
	Scale    float64 `json:"scale"`
	Norm     float64 `json:"norm"`
	Spectral float64 `json:"spectral_norm"`
	Entropy  float64 `json:"entropy_rank"`
	Stable   float64 `json:"stable_rank"`
	Energy90 int     `json:"energy_rank_90"`
	Energy99 int     `json:"energy_rank_99"`
}

func (a *app) adapterInspect(ctx context.Context, path, base string) error {
	in, err := formats.Open(path)
	if err != nil {
		return err
	}
	defer in.Close()
	ad, f, err := inspected(in, base)
	if err != nil {
		return err
	}
	c := ad.Config
	r := &adapterInspectResult{
		Path: path, Format: adapterFormat(in), UseRSLoRA: c.UseRSLoRA, UseDoRA: c.UseDoRA,
		adapterFacts: adapterFacts{Type: c.PeftType, Base: c.BaseModel, Rank: c.R, Alpha: c.LoraAlpha, Scale: c.Scaling(), Targets: targets(ad)},
	}
	if err := c.Unsupported(); err != nil {
		r.NotMerged = errorText(err)
	}
	for info := range ad.All() {
		r.Parameters += info.Shape.Elems()
		r.Bytes += info.Size()
	}
	for _, info := range f.Rest {
		r.Whole = append(r.Whole, tensorFacts{Name: info.Name, DType: info.DType.String(), Shape: info.Shape, Bytes: info.Size()})
	}
	spectra, err := a.spectra(ctx, f)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	var squares float64
	for i, s := range spectra {
		m := f.Modules[i]
		x := &moduleFacts{
			Module: m.Name, Out: m.Out, In: m.In, Rank: m.Rank, Scale: m.Scale, Norm: s.Norm(), Spectral: s[0],
			Entropy: s.EntropyRank(), Stable: s.StableRank(), Energy90: s.EnergyRank(0.9), Energy99: s.EnergyRank(0.99),
		}
		squares += x.Norm * x.Norm
		r.Modules = append(r.Modules, x)
	}
	r.Norm = math.Sqrt(squares)
	return a.print(r)
}

// inspected returns the adapter that an input is. A GGUF file is read as it is if its base is
// not given: nothing that is said of it depends on the names or on the order of rows.
func inspected(in *formats.Input, base string) (*peft.Adapter, *factors.Adapter, error) {
	m, err := modelOf(base)
	if err != nil {
		return nil, nil, err
	}
	var ad *peft.Adapter
	if in.GGUF != nil && convert.IsAdapter(in.Meta()) && m == nil {
		ad, err = plainGGUF(in)
	} else {
		ad, err = adapterOf(in, m)
	}
	if err != nil {
		return nil, nil, err
	}
	f, err := inventory(in.Path, ad)
	if err != nil {
		return nil, nil, err
	}
	return ad, f, nil
}

// plainGGUF returns a GGUF adapter with the names that it has.
func plainGGUF(in *formats.Input) (*peft.Adapter, error) {
	t, scale, err := convert.AdapterAsNamed(in.GGUF, codecs)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", in.Path, err)
	}
	f, err := factors.Inventory(t, func(_ string, rank int) (float64, error) { return scale.Of(rank), nil })
	if err != nil {
		return nil, fmt.Errorf("%s: %w", in.Path, err)
	}
	c := peft.NewConfig()
	c.SetModules(scalesOf(f))
	c.BaseModel = baseName(in.Meta(), "")
	return peft.NewAdapter(c, t, in.Path, nil), nil
}

// adapterFormat says in a word whose format an adapter is in.
func adapterFormat(in *formats.Input) string {
	switch {
	case in.GGUF != nil:
		return "GGUF"
	case in.Adapter != nil && in.Adapter.MLX():
		return "MLX"
	case in.Adapter != nil:
		return "PEFT"
	}
	for info := range in.All() {
		if strings.HasSuffix(info.Name, ".lora_down.weight") {
			return "kohya"
		}
	}
	return "diffusers"
}

// spectra returns the singular values of all modules.
func (a *app) spectra(ctx context.Context, f *factors.Adapter) ([]factors.Spectrum, error) {
	out := make([]factors.Spectrum, len(f.Modules))
	err := a.eachModule(ctx, "decompose", f, func(i int, p *factors.Pair) error {
		out[i] = p.Decompose().Values
		return nil
	})
	return out, err
}

// eachModule reads the modules of an adapter one after another; what is done with one is
// spread over the processors itself.
func (a *app) eachModule(ctx context.Context, what string, f *factors.Adapter, do func(i int, p *factors.Pair) error) error {
	bar := a.progress(what, int64(len(f.Modules)), itemsUnit)
	defer bar.stop()
	for i := range f.Modules {
		if err := ctx.Err(); err != nil {
			return err
		}
		p, err := f.Read(codecs, &f.Modules[i])
		if err != nil {
			return err
		}
		if err := do(i, p); err != nil {
			return fmt.Errorf("module %s: %w", f.Modules[i].Name, err)
		}
		bar.add(1)
	}
	return nil
}

func (r *adapterInspectResult) text(w io.Writer) {
	fmt.Fprintf(w, "%s: %s adapter\n", r.Path, r.Format)
	line := func(name, format string, args ...any) {
		fmt.Fprintf(w, "  %-11s %s\n", name, fmt.Sprintf(format, args...))
	}
	var more []string
	if r.UseRSLoRA {
		more = append(more, "rsLoRA")
	}
	if r.UseDoRA {
		more = append(more, "DoRA")
	}
	ranks := []int{}
	for _, m := range r.Modules {
		if !slices.Contains(ranks, m.Rank) {
			ranks = append(ranks, m.Rank)
		}
	}
	slices.Sort(ranks)
	if len(ranks) == 1 {
		line("type", "%s", strings.Join(append([]string{fmt.Sprintf("%s, rank %d, alpha %g, scale %.4g", r.Type, r.Rank, r.Alpha, r.Scale)}, more...), ", "))
	} else {
		line("type", "%s", strings.Join(append([]string{fmt.Sprintf("%s, ranks %d to %d", r.Type, ranks[0], ranks[len(ranks)-1])}, more...), ", "))
	}
	line("targets", "%s", strings.Join(r.Targets, ", "))
	if r.Base != "" {
		line("base", "%s", plain(r.Base))
	}
	line("size", "%s, %s numbers in %s", memory.FormatSize(r.Bytes), thousands(r.Parameters), plural(len(r.Modules), "module"))
	line("norm", "%.5g of all that is added", r.Norm)
	if r.NotMerged != "" {
		line("not merged", "%s", r.NotMerged)
	}
	fmt.Fprintf(w, "\n  %-52s %13s %5s %8s %10s %10s %8s %5s %5s\n", "module", "out x in", "rank", "scale", "norm", "largest", "entropy", "90%", "99%")
	for _, m := range r.Modules {
		fmt.Fprintf(w, "  %-52s %13s %5d %8.4g %10.4g %10.4g %8.1f %5d %5d\n", plain(m.Module), fmt.Sprintf("%d x %d", m.Out, m.In), m.Rank, m.Scale, m.Norm, m.Spectral, m.Entropy, m.Energy90, m.Energy99)
	}
	for i, t := range r.Whole {
		if i == 0 {
			fmt.Fprintf(w, "\n  stored whole\n")
		}
		fmt.Fprintf(w, "  %-52s %v\n", plain(t.Name), t.Shape)
	}
}
