package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/seed18967229/nibble/formats"
	"github.com/seed18967229/nibble/internal/chart"
	"github.com/seed18967229/nibble/internal/fsx"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/memory"
	"github.com/seed18967229/nibble/merge/factors"
)

func (a *app) adapterRankCommand() *cobra.Command {
	var energy float64
	var base, plot string
	cmd := &cobra.Command{
		Use:   "rank ADAPTER",
		Short: "Show the spectrum of each module, what rank would do, and where numbers are best spent",
		Long: `Decompose each module of an adapter and show what rank would keep a share of its
energy, the sum of its squared singular values.

  kept at r/2  the share that half of its rank would keep
  flat         the smallest singular value over the largest: near 1 every rank is in
               use and more of them may help, near 0 the last are not
  worth        of a kind of module: its share of the energy of all over its share of the
               numbers; above 1 numbers are better spent there

The last table compares the error at lower ranks, the same for all modules, with that of
as many numbers where they take away most: adapter resize --max-size does that.`,
		Example: "  nibble adapter rank adapters\n  nibble adapter rank adapters --energy 0.9 --plot ranks.png",
		Args:    exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.adapterRank(cmd.Context(), args[0], base, plot, energy)
		},
	}
	f := cmd.Flags()
	f.Float64Var(&energy, "energy", 0.95, "share of the energy that the suggested rank keeps")
	f.StringVar(&plot, "plot", "", "draw the spectra and the ranks into this PNG or SVG file")
	baseFlag(cmd, &base)
	return cmd
}

type adapterRankResult struct {
	Path    string         `json:"path"`
	Energy  float64        `json:"energy"`
	Norm    float64        `json:"norm"`
	Params  int64          `json:"parameters"`
	Suggest int64          `json:"suggested_parameters"`
	Error   float64        `json:"relative_error"`
	Modules []*moduleRank  `json:"modules"`
	Kinds   []*kindRank    `json:"kinds"`
	Budgets []*budgetTrial `json:"budgets"`
	Plot    string         `json:"plot,omitempty"`
}

type moduleRank struct {
	Module   string            `json:"module"`
	Rank     int               `json:"rank"`
	Suggest  int               `json:"suggested_rank"`
	Norm     float64           `json:"norm"`
	Entropy  float64           `json:"entropy_rank"`
	KeptHalf float64           `json:"energy_kept_at_half"`
	Flat     float64           `json:"flatness"`
	Spectrum factors.Spectrum  `json:"singular_values"`
	of       factors.Candidate // for budgets
	layer    int               // -1 for none
	kind     string
}

// kindRank is of the modules with one name in all layers.
type kindRank struct {
	Kind    string  `json:"kind"`
	Modules int     `json:"modules"`
	Params  float64 `json:"parameter_share"`
	Energy  float64 `json:"energy_share"`
	Worth   float64 `json:"worth"`
	Suggest float64 `json:"mean_suggested_rank"`
	Entropy float64 `json:"mean_entropy_rank"`
}

// budgetTrial compares two ways to spend a number of numbers.
type budgetTrial struct {
	Rank    int     `json:"rank"`
	Params  int64   `json:"parameters"`
	Same    float64 `json:"error_same_rank"`
	Greedy  float64 `json:"error_by_module"`
	Lowest  int     `json:"lowest_rank"`
	Highest int     `json:"highest_rank"`
}

func (a *app) adapterRank(ctx context.Context, path, base, plot string, energy float64) error {
	if !(energy > 0 && energy <= 1) {
		return badUsage(fmt.Errorf("--energy is %v, want a share above 0 and at most 1", energy))
	}
	in, err := formats.Open(path)
	if err != nil {
		return err
	}
	defer in.Close()
	var picture *fsx.File
	if plot != "" {
		if ext := strings.ToLower(filepath.Ext(plot)); ext != ".png" && ext != ".svg" {
			return badUsage(hint.Add(fmt.Errorf("--plot %s: the picture is a PNG or an SVG", plot), "give it a name that ends in .png or .svg"))
		}
		if err := fsx.CheckOutput(plot, append(in.Paths(), path)...); err != nil {
			return badUsage(err)
		}
		if picture, err = fsx.Create(plot, a.force); err != nil {
			return err
		}
		defer picture.Abort()
	}
	_, f, err := inspected(in, base)
	if err != nil {
		return err
	}
	spectra, err := a.spectra(ctx, f)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	r := &adapterRankResult{Path: path, Energy: energy, Plot: plot}
	r.measure(f, spectra)
	if picture != nil {
		b, err := r.draw(strings.EqualFold(filepath.Ext(plot), ".svg"))
		if err != nil {
			return err
		}
		if _, err := picture.Write(b); err != nil {
			return fmt.Errorf("%s: %w", plot, err)
		}
		if err := picture.Commit(); err != nil {
			return err
		}
	}
	return a.print(r)
}

// measure fills in all but the picture.
func (r *adapterRankResult) measure(f *factors.Adapter, spectra []factors.Spectrum) {
	var all, lost float64
	highest := 0
	for i, s := range spectra {
		m := f.Modules[i]
		x := &moduleRank{
			Module: m.Name, Rank: m.Rank, Suggest: max(1, s.EnergyRank(r.Energy)), Norm: s.Norm(), Entropy: s.EntropyRank(), Spectrum: s,
			of: factors.Candidate{Out: m.Out, In: m.In, Spectrum: s},
		}
		x.layer, x.kind = placeOf(m.Name)
		x.KeptHalf = 1 - math.Pow(s.Lost((m.Rank+1)/2), 2)
		// Beyond the sides of the matrix there is nothing.
		if last := min(m.Rank, m.Out, m.In) - 1; s[0] > 0 {
			x.Flat = s[last] / s[0]
		}
		all += x.Norm * x.Norm
		lost += math.Pow(x.Norm*s.Lost(x.Suggest), 2)
		r.Params += m.Params()
		r.Suggest += int64(x.Suggest) * int64(m.Out+m.In)
		highest = max(highest, m.Rank)
		r.Modules = append(r.Modules, x)
	}
	r.Norm = math.Sqrt(all)
	if all > 0 {
		r.Error = math.Sqrt(lost / all)
	}
	r.kinds(all)
	for _, k := range []int{highest / 4, highest / 2, highest * 3 / 4} {
		if k > 0 && (len(r.Budgets) == 0 || r.Budgets[len(r.Budgets)-1].Rank != k) {
			r.Budgets = append(r.Budgets, r.try(k, all))
		}
	}
}

// placeOf returns the number of a module's layer, -1 for none, and what it is called within,
// with a star for another number, as of an expert.
func placeOf(module string) (int, string) {
	parts := strings.Split(module, ".")
	layer, from := -1, 0
	for i, p := range parts {
		n, err := strconv.Atoi(p)
		switch {
		case err != nil || n < 0 || i+1 == len(parts):
		case layer < 0:
			layer, from = n, i+1
		default:
			parts[i] = "*"
		}
	}
	return layer, strings.Join(parts[from:], ".")
}

func (r *adapterRankResult) kinds(all float64) {
	by := make(map[string]*kindRank)
	for _, m := range r.Modules {
		k := by[m.kind]
		if k == nil {
			k = &kindRank{Kind: m.kind}
			by[m.kind] = k
			r.Kinds = append(r.Kinds, k)
		}
		k.Modules++
		k.Params += float64(m.Rank) * float64(m.of.Out+m.of.In) / float64(r.Params)
		if all > 0 {
			k.Energy += m.Norm * m.Norm / all
		}
		k.Suggest += float64(m.Suggest)
		k.Entropy += m.Entropy
	}
	for _, k := range r.Kinds {
		k.Worth = k.Energy / k.Params
		k.Suggest /= float64(k.Modules)
		k.Entropy /= float64(k.Modules)
	}
	slices.SortStableFunc(r.Kinds, func(x, y *kindRank) int { return cmp.Compare(y.Worth, x.Worth) })
}

// try compares rank k everywhere with as many numbers spent by module.
func (r *adapterRankResult) try(k int, all float64) *budgetTrial {
	b := &budgetTrial{Rank: k}
	var list []factors.Candidate
	var same, greedy float64
	for _, m := range r.Modules {
		list = append(list, m.of)
		b.Params += int64(min(k, m.Rank)) * int64(m.of.Out+m.of.In)
		same += math.Pow(m.Norm*m.Spectrum.Lost(k), 2)
	}
	ranks := factors.Budget{Params: b.Params}.Ranks(list)
	for i, m := range r.Modules {
		greedy += math.Pow(m.Norm*m.Spectrum.Lost(ranks[i]), 2)
	}
	b.Lowest, b.Highest = slices.Min(ranks), slices.Max(ranks)
	if all > 0 {
		b.Same, b.Greedy = math.Sqrt(same/all), math.Sqrt(greedy/all)
	}
	return b
}

func (r *adapterRankResult) text(w io.Writer) {
	fmt.Fprintf(w, "%s: %s, norm %.5g\n", r.Path, plural(len(r.Modules), "module"), r.Norm)
	fmt.Fprintf(w, "  %-52s %5s %9s %10s %8s %11s %6s\n", "module", "rank", "suggested", "norm", "entropy", "kept at r/2", "flat")
	for _, m := range r.Modules {
		fmt.Fprintf(w, "  %-52s %5d %9d %10.4g %8.1f %11s %6.3f\n", plain(m.Module), m.Rank, m.Suggest, m.Norm, m.Entropy, share(m.KeptHalf), m.Flat)
	}
	fmt.Fprintf(w, "\n  suggested: %s of energy in each module, %s numbers in place of %s, error %s\n", share(r.Energy), thousands(r.Suggest), thousands(r.Params), share(r.Error))
	fmt.Fprintf(w, "\n  %-36s %7s %9s %9s %6s %9s %8s\n", "kind of module", "modules", "numbers", "energy", "worth", "suggested", "entropy")
	for _, k := range r.Kinds {
		fmt.Fprintf(w, "  %-36s %7d %9s %9s %6.2f %9.1f %8.1f\n", plain(k.Kind), k.Modules, share(k.Params), share(k.Energy), k.Worth, k.Suggest, k.Entropy)
	}
	if len(r.Budgets) > 0 {
		fmt.Fprintf(w, "\n  %9s %12s %12s %12s %16s   %s\n", "same rank", "size", "error", "by module", "ranks", "with")
	}
	for _, b := range r.Budgets {
		fmt.Fprintf(w, "  %9d %12s %12s %12s %16s   adapter resize --max-size %d\n", b.Rank, memory.FormatSize(4*b.Params), share(b.Same), share(b.Greedy), fmt.Sprintf("%d to %d", b.Lowest, b.Highest), 4*b.Params)
	}
	if r.Plot != "" {
		fmt.Fprintf(w, "%s: picture of the spectra and ranks\n", r.Plot)
	}
}

// mostKinds is how many kinds of modules a picture has: those with the most energy.
const mostKinds = 12

// draw draws, by kind, the error that is left at each rank, and in a grid of layers and kinds
// the norms, with the suggested ranks.
func (r *adapterRankResult) draw(svg bool) ([]byte, error) {
	kinds := slices.Clone(r.Kinds)
	if len(kinds) > mostKinds {
		slices.SortStableFunc(kinds, func(x, y *kindRank) int { return cmp.Compare(y.Energy, x.Energy) })
		kinds = kinds[:mostKinds]
	}
	layers := []int{}
	for _, m := range r.Modules {
		if !slices.Contains(layers, m.layer) {
			layers = append(layers, m.layer)
		}
	}
	slices.Sort(layers)
	grid := chart.Grid{Title: "Suggested rank; the darker, the larger is what is added", X: "layer"}
	for _, l := range layers {
		name := strconv.Itoa(l)
		if l < 0 {
			name = "–"
		}
		grid.Columns = append(grid.Columns, name)
	}
	var curves []chart.Curve
	for _, k := range kinds {
		own := slices.DeleteFunc(slices.Clone(r.Modules), func(m *moduleRank) bool { return m.kind != k.Kind })
		values, texts := fieldsOf(own, layers)
		grid.Rows, grid.Values, grid.Texts = append(grid.Rows, k.Kind), append(grid.Values, values), append(grid.Texts, texts)
		curves = append(curves, chart.Curve{Name: k.Kind, Points: curveOf(own)})
	}
	return chart.CurvesAndGrid("Error of what is added, by rank", "rank", "share of the norm that is lost", true, curves, grid, svg)
}

// fieldsOf returns the norm of what modules add in each layer, and the mean of the ranks that
// are suggested.
func fieldsOf(own []*moduleRank, layers []int) ([]float64, []string) {
	values, texts := make([]float64, len(layers)), make([]string, len(layers))
	for i, l := range layers {
		var squares, ranks, n float64
		for _, m := range own {
			if m.layer == l {
				squares, ranks, n = squares+m.Norm*m.Norm, ranks+float64(m.Suggest), n+1
			}
		}
		values[i] = math.NaN()
		if n > 0 {
			values[i], texts[i] = math.Sqrt(squares), strconv.FormatFloat(math.Round(ranks/n), 'f', 0, 64)
		}
	}
	return values, texts
}

// curveOf returns the error of what modules add together at each rank.
func curveOf(own []*moduleRank) []chart.Point {
	var out []chart.Point
	most := 0
	for _, m := range own {
		most = max(most, m.Rank)
	}
	for rank := range most + 1 {
		var all, lost float64
		for _, m := range own {
			all += m.Norm * m.Norm
			lost += math.Pow(m.Norm*m.Spectrum.Lost(rank), 2)
		}
		if all > 0 {
			out = append(out, chart.Point{X: float64(rank), Y: math.Sqrt(lost / all)})
		}
	}
	return out
}
