package main

import (
	"errors"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/formats/hf"
	"github.com/seed18967229/nibble/formats/peft"
	"github.com/seed18967229/nibble/internal/fsx"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/nf4/bnb"
	"github.com/seed18967229/nibble/tensor"
)

// initOptions are the flags of the adapter that is made while a model is quantized.
type initOptions struct {
	method  string
	out     string
	rank    int
	alpha   float64
	targets []string
}

func initFlags(cmd *cobra.Command, o *initOptions) {
	f := cmd.Flags()
	f.StringVar(&o.method, "init-adapter", "", "loftq or loftq:ITERATIONS: also write the LoRA that best corrects the error; more than one iteration changes the quantized weights too")
	f.StringVar(&o.out, "adapter-out", "", "directory of that adapter (default OUT-loftq)")
	f.IntVar(&o.rank, "rank", 16, "its rank")
	f.Float64Var(&o.alpha, "alpha", 0, "its lora_alpha (default the rank, so that it is not scaled)")
	f.StringSliceVar(&o.targets, "target-modules", nil, "linear layers that it corrects, of those that are quantized (default all)")
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error {
		for _, name := range []string{"adapter-out", "rank", "alpha", "target-modules"} {
			if o.method == "" && f.Changed(name) {
				return badUsage(hint.Add(fmt.Errorf("--%s without --init-adapter", name), "give --init-adapter loftq too"))
			}
		}
		return nil
	}
}

// initialAdapter is an adapter in the making. Without --init-adapter nothing of it does
// anything.
type initialAdapter struct {
	*initOptions
	loftq  *bnb.LoftQ
	writer *peft.Writer
}

// newInitialAdapter checks the flags against the model.
func newInitialAdapter(o *initOptions, m *model, out string, typ tensor.DType) (*initialAdapter, error) {
	ad := &initialAdapter{initOptions: o}
	if o.method == "" {
		return ad, nil
	}
	name, count, many := strings.Cut(o.method, ":")
	iterations := 1
	if many {
		n, err := strconv.Atoi(count)
		if err != nil || n < 1 {
			return nil, badUsage(hint.Add(fmt.Errorf("--init-adapter %s: no number of iterations", o.method), "write loftq:5"))
		}
		iterations = n
	}
	if o.out == "" {
		o.out = filepath.Clean(out) + "-loftq"
	}
	if o.alpha == 0 {
		o.alpha = float64(o.rank)
	}
	switch {
	case name != "loftq":
		return nil, badUsage(hint.Add(fmt.Errorf("--init-adapter %s: there is no such way", o.method), "there is: loftq"))
	case typ != tensor.NF4 && typ != tensor.FP4:
		return nil, badUsage(hint.Add(fmt.Errorf("--init-adapter with --type %s", strings.ToLower(typ.String())), "it is for nf4 and fp4"))
	case o.rank < 1:
		return nil, badUsage(fmt.Errorf("--rank is %d, want 1 or more", o.rank))
	case !(o.alpha > 0) || math.IsInf(o.alpha, 1):
		return nil, badUsage(fmt.Errorf("--alpha is %v, want more than 0", o.alpha))
	case inside(o.out, out) || inside(out, o.out):
		return nil, badUsage(fmt.Errorf("%s: --adapter-out is OUT, or one is inside the other", o.out))
	case m.view.Partial():
		return nil, fmt.Errorf("%s: %w: --init-adapter for a model of more than text", m.Path, tensor.ErrUnsupported)
	case m.arch.FanInFanOut():
		return nil, fmt.Errorf("%s: %w: --init-adapter for a family that stores weights as [in, out]", m.Path, tensor.ErrUnsupported)
	}
	if err := fsx.CheckOutput(o.out, m.Path); err != nil {
		return nil, badUsage(err)
	}
	known := m.arch.LinearModules()
	for _, t := range o.targets {
		if !slices.ContainsFunc(m.arch.Tensors(), func(x arch.Tensor) bool { return x.Linear && named(x.Module(), t) }) {
			return nil, badUsage(hint.Add(fmt.Errorf("--target-modules %q: the model has no linear layer of that name", t), "it has %s", strings.Join(known, ", ")))
		}
	}
	ad.loftq = &bnb.LoftQ{Rank: o.rank, Iterations: iterations}
	if len(o.targets) > 0 {
		ad.loftq.Targets = func(module string) bool {
			return slices.ContainsFunc(o.targets, func(t string) bool { return named(module, t) })
		}
	}
	return ad, nil
}

// named reports whether a module goes by a name of --target-modules.
func named(module, name string) bool { return module == name || strings.HasSuffix(module, "."+name) }

// inside reports whether a path is a directory or inside it.
func inside(path, dir string) bool {
	a, aerr := filepath.Abs(path)
	d, derr := filepath.Abs(dir)
	rel, err := filepath.Rel(d, a)
	return aerr == nil && derr == nil && err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator))
}

// create starts the adapter's directory, once the model is planned: base is what it is
// an adapter of.
func (ad *initialAdapter) create(m *model, base string, force bool) (err error) {
	if ad.loftq == nil {
		return nil
	}
	list := ad.loftq.Corrections()
	if len(list) == 0 {
		return hint.Add(fmt.Errorf("%s: %w: no weight that is quantized is to be corrected", m.Path, tensor.ErrUnsupported), "see --target-modules and --skip-modules")
	}
	c := peft.NewConfig()
	c.TaskType, c.BaseModel = "CAUSAL_LM", base
	c.R, c.LoraAlpha = int64(ad.rank), ad.alpha
	c.TargetModules = peft.Modules{Names: moduleNames(m, list)}
	var layout []tensor.Info
	for _, x := range list {
		layout = append(layout,
			tensor.Info{Name: x.Module + ".lora_A.weight", DType: tensor.F32, Shape: tensor.Shape{c.R, x.Shape.Cols()}},
			tensor.Info{Name: x.Module + ".lora_B.weight", DType: tensor.F32, Shape: tensor.Shape{x.Shape.Rows(), c.R}})
	}
	if ad.writer, err = peft.Create(ad.out, c, layout, force); err != nil {
		return err
	}
	// Whoever loads the adapter multiplies by alpha/rank.
	share := float32(math.Sqrt(1 / c.Scaling()))
	ad.loftq.Store = func(module string, a, b []float32) error {
		for _, x := range [][]float32{a, b} {
			for i := range x {
				x[i] *= share
			}
		}
		return errors.Join(ad.writer.Put(module+".lora_A.weight", a), ad.writer.Put(module+".lora_B.weight", b))
	}
	return nil
}

// moduleNames names the corrected modules for PEFT: the last parts of their names where
// these are of no other linear layer, else whole.
func moduleNames(m *model, list []bnb.Correction) []string {
	corrected := make(map[string]bool)
	for _, x := range list {
		corrected[x.Module] = true
	}
	short := func(module string) string { return module[strings.LastIndexByte(module, '.')+1:] }
	others := make(map[string]bool)
	for _, t := range m.arch.Tensors() {
		if t.Linear && !corrected[t.Module()] {
			others[short(t.Module())] = true
		}
	}
	var names []string
	for _, x := range list {
		name := short(x.Module)
		if others[name] {
			name = x.Module
		}
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// abort removes what was written of an adapter that was not finished.
func (ad *initialAdapter) abort() {
	if ad.writer != nil {
		ad.writer.Abort()
	}
}

// beside returns a sink that completes the adapter with the model, or neither.
func (ad *initialAdapter) beside(s tensor.Sink, _ []hf.SideFile) tensor.Sink {
	if ad.writer == nil {
		return s
	}
	return &withAdapter{s, ad.writer}
}

type withAdapter struct {
	tensor.Sink
	adapter *peft.Writer
}

// Finish implements tensor.Sink. When the model gets its name, only that of the adapter
// is left to be given.
func (w *withAdapter) Finish() error {
	if err := w.adapter.Finish(); err != nil {
		return errors.Join(err, w.Abort())
	}
	if err := w.Sink.Finish(); err != nil {
		return errors.Join(err, w.adapter.Abort())
	}
	return w.adapter.Commit()
}

// Abort implements tensor.Sink.
func (w *withAdapter) Abort() error { return errors.Join(w.Sink.Abort(), w.adapter.Abort()) }

// adapterResult is what became of --init-adapter.
type adapterResult struct {
	Out        string  `json:"out"`
	Rank       int     `json:"rank"`
	Alpha      float64 `json:"alpha"`
	Iterations int     `json:"iterations"`

	// Means over the modules of what bnb.Correction has of each.
	Before  float64          `json:"mean_error_before"`
	Base    float64          `json:"mean_error_of_base"`
	After   float64          `json:"mean_error_after"`
	Modules []bnb.Correction `json:"modules"`
}

// result returns nil without --init-adapter.
func (ad *initialAdapter) result() *adapterResult {
	if ad.loftq == nil {
		return nil
	}
	r := &adapterResult{Out: ad.out, Rank: ad.rank, Alpha: ad.alpha, Iterations: ad.loftq.Iterations, Modules: ad.loftq.Corrections()}
	for _, x := range r.Modules {
		n := float64(len(r.Modules))
		r.Before, r.Base, r.After = r.Before+x.Before/n, r.Base+x.Base/n, r.After+x.After/n
	}
	return r
}

func (r *adapterResult) text(w io.Writer) {
	fmt.Fprintf(w, "  adapter       %s: rank %d for %s; error %.4f -> %.4f relative RMS, mean\n", r.Out, r.Rank, plural(len(r.Modules), "module"), r.Before, r.After)
	if r.Iterations > 1 {
		fmt.Fprintf(w, "                the quantized weights go with it: by themselves their error is %.4f\n", r.Base)
	}
}
