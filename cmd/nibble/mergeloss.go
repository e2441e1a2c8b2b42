package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"math"
	"os"
	"slices"

	"github.com/seed18967229/nibble/formats/peft"
	"github.com/seed18967229/nibble/internal/kernel"
	"github.com/seed18967229/nibble/internal/report"
	"github.com/seed18967229/nibble/merge"
	"github.com/seed18967229/nibble/nf4/bnb"
	"github.com/seed18967229/nibble/tensor"
)

// mergeLoss says how large what quantization does to weights is beside what adapters do
// to them.
type mergeLoss struct {
	// Type is what the base is quantized to, or was when an adapter was trained; Source
	// what says so.
	Type   string `json:"base_type,omitempty"`
	Source string `json:"base_type_from,omitempty"`

	// How the error was found: "measured" on the weights before they were quantized,
	// all or some of them, or "estimated" from those that the base has.
	How string `json:"base_error_how,omitempty"`

	// Base is about ||W - Q(W)|| / ||delta||, Survived about the part of the delta that
	// is in what was written.
	Base     *spread `json:"error_over_delta,omitempty"`
	Survived *spread `json:"delta_survived,omitempty"`

	Modules []moduleLoss `json:"modules"`

	out string // how what was written is quantized
	was string // the base that is merged into, in words
}

// moduleLoss is of one tensor that changes. Norms are Frobenius norms.
type moduleLoss struct {
	Name  string  `json:"name"`
	Norm  float64 `json:"norm"`
	Delta float64 `json:"delta_norm"`

	// Error is ||W - Q(W)||, of the base.
	Error *float64 `json:"base_error_norm,omitempty"`
	Ratio *float64 `json:"error_over_delta,omitempty"`

	// Survived is the part of the delta in what was written, as a projection: 1 is all.
	// Noise is what is in it beside, relative to the delta.
	Survived *float64 `json:"delta_survived,omitempty"`
	Noise    *float64 `json:"noise_over_delta,omitempty"`
}

// spread is the figures of several modules.
type spread struct {
	Median float64 `json:"median"`
	Worst  float64 `json:"worst"`
	Module string  `json:"worst_module"`
}

// spreadOf returns the spread of a figure of modules, nil if none has it. worst compares
// like cmp.Compare and puts the worst first.
func spreadOf(modules []moduleLoss, of func(*moduleLoss) *float64, worst func(a, b float64) int) *spread {
	type one struct {
		v    float64
		name string
	}
	var list []one
	for i := range modules {
		if v := of(&modules[i]); v != nil {
			list = append(list, one{*v, modules[i].Name})
		}
	}
	if len(list) == 0 {
		return nil
	}
	slices.SortStableFunc(list, func(a, b one) int { return worst(a.v, b.v) })
	return &spread{Median: list[len(list)/2].v, Worst: list[0].v, Module: list[0].name}
}

// probeElems is about how many weights of a tensor are looked at, in rows spread over it.
const probeElems = 1 << 16

// seenBase is the base of a merge as its adapters are merged into it, and what is known of
// how they saw it.
type seenBase struct {
	model *model

	// through is how the base is quantized on the way, and the account of it; nil if it
	// is not.
	through *encoding
	account *bnb.Account

	// trained is what the base was quantized to when an adapter was trained, as source
	// says; nil if nothing says so.
	trained *encoding
	source  string
}

// seen returns what adapters are merged into.
func (o *outputOptions) seen(m *model) (*seenBase, error) {
	if o.through == "" {
		return &seenBase{model: m}, nil
	}
	e, opts, err := o.parseThrough()
	if err != nil {
		return nil, err
	}
	src, account, err := m.through(opts)
	if err != nil {
		return nil, err
	}
	seen := m.over(src, nil, m.view.Dropped)
	seen.before = m.view
	return &seenBase{model: seen, through: &e, account: account}, nil
}

// note takes note of what an adapter says of its base. The first that does counts.
func (s *seenBase) note(path string, c *peft.Config) {
	if s == nil || s.trained != nil {
		return
	}
	if e, source, ok := trainedOn(path, c); ok {
		s.trained, s.source = &e, source
	}
}

// mergeLoss makes the account of a merge that was written, nil if quantization has no
// part in it.
func (a *app) mergeLoss(ctx context.Context, m *mergedModel, path string, o *outputOptions) (*mergeLoss, error) {
	var out *model
	if o.quantize != "" || o.dtype == "q8_0" {
		var err error
		if out, err = openMeasured(firstPart(path)); err != nil {
			return nil, err
		}
		defer out.Close()
	}
	l, err := a.measureMerge(ctx, m, o.base, out, o.report != "")
	if l != nil {
		if l.out = cmp.Or(o.quantize, o.dtype); l.out == keepTypes {
			l.out = "what the base is quantized to"
		}
	}
	return l, err
}

// measureMerge is mergeLoss of a model that was written to out, which is nil if that is
// not quantized; with all, though quantization has no part in it.
func (a *app) measureMerge(ctx context.Context, m *mergedModel, in *seenBase, out *model, all bool) (*mergeLoss, error) {
	l := &mergeLoss{Modules: []moduleLoss{}, was: m.Path}
	trained := false // it is what an adapter says that counts
	switch {
	case in.through != nil:
		l.Type, l.Source, l.How = in.through.String(), "--through", "measured"
	case m.quantized():
		l.Source, l.How = m.Path, "estimated"
	case in.trained != nil:
		trained = true
		l.Type, l.Source, l.How = in.trained.String(), in.source, "measured on a sample"
	}
	written := out != nil && out.view != nil
	if l.How == "" && !written && !all {
		return nil, nil
	}
	rel := make(map[string]float64)
	if in.account != nil {
		for _, r := range in.account.Results() {
			if r.Quantized() {
				rel[r.Name] = r.RelRMS
			}
		}
	}
	norms := make(map[string]merge.TensorAccount)
	for _, t := range m.account.Tensors() {
		norms[t.Name] = t
	}
	byTarget := make(map[string][]merge.Change)
	var order []string
	for _, c := range m.changes {
		if byTarget[c.Target()] == nil {
			order = append(order, c.Target())
		}
		byTarget[c.Target()] = append(byTarget[c.Target()], c)
	}
	found := make([]*moduleLoss, len(order))
	types := make([]string, len(order))
	err := each(ctx, a.scanWorkers(4), len(order), func(_ context.Context, i int) error {
		name := order[i]
		p, err := m.probe(name, byTarget[name])
		if p == nil || err != nil {
			return err
		}
		x := &moduleLoss{Name: name, Norm: p.whole(p.square), Delta: p.whole(p.deltaSquare)}
		if t, ok := norms[name]; ok {
			if x.Delta = t.Delta; m.before == nil {
				x.Norm = t.Norm
			}
		}
		var e *encoding
		mixed := false
		switch own, ok := m.encodingOf(name); {
		case in.account != nil:
			if r, ok := rel[name]; ok {
				x.setError(r * x.Norm)
			}
		case ok:
			e, mixed = &own, true
			types[i] = own.String()
		case trained && m.linear(name):
			e = in.trained
		}
		if e != nil {
			r, err := p.loses(*e, mixed)
			if err != nil {
				return fmt.Errorf("tensor %q: %w", name, err)
			}
			x.setError(r * x.Norm)
		}
		if written && out.storedQuantized(name) {
			if err := p.survives(x, m, out); err != nil {
				return fmt.Errorf("tensor %q: %w", name, err)
			}
		}
		found[i] = x
		return nil
	})
	if err != nil {
		return nil, err
	}
	for i, x := range found {
		if x != nil {
			l.Modules = append(l.Modules, *x)
		}
		if l.Type == "" {
			l.Type = types[i]
		}
	}
	l.Base = spreadOf(l.Modules, func(x *moduleLoss) *float64 { return x.Ratio }, func(a, b float64) int { return cmp.Compare(b, a) })
	l.Survived = spreadOf(l.Modules, func(x *moduleLoss) *float64 { return x.Survived }, cmp.Compare[float64])
	if l.Base == nil && l.Survived == nil && !all {
		return nil, nil
	}
	return l, nil
}

func (x *moduleLoss) setError(e float64) {
	x.Error = &e
	if x.Delta > 0 {
		r := e / x.Delta
		x.Ratio = &r
	}
}

// storedQuantized reports whether a tensor of the model's view is stored quantized.
func (m *model) storedQuantized(name string) bool {
	for _, from := range m.view.Origin(name).From {
		if info, err := m.original().Info(from); err == nil && (info.DType.Opaque() || blockType(info.DType)) {
			return true
		}
	}
	return false
}

// linear reports whether a tensor is a weight that transformers quantizes.
func (m *model) linear(name string) bool {
	for _, t := range m.arch.Tensors() {
		if t.Name == name {
			return len(t.Dims) == 2 && t.Part == "weight" && roleReasons[t.Role] == "" && t.Name != "lm_head.weight"
		}
	}
	return false
}

// probe is some rows of a tensor, as the base has them and what is added to them.
type probe struct {
	info     tensor.Info
	at       []int64   // the rows
	w, delta []float32 // one after another

	square, deltaSquare float64
}

// probe looks at some rows of a tensor of two dimensions or more, nil for others.
func (m *mergedModel) probe(name string, changes []merge.Change) (*probe, error) {
	info, rows, err := codecs.OpenFrom(m.source(), name)
	if err != nil || len(info.Shape) < 2 || info.Shape.Elems() == 0 {
		return nil, nil // one that the base does not have by itself
	}
	total, cols := info.Shape.Rows(), info.Shape.Cols()
	n := min(total, max(2, probeElems/cols))
	p := &probe{info: info, w: make([]float32, n*cols), delta: make([]float32, n*cols)}
	for i := range n {
		row := i * total / n
		p.at = append(p.at, row)
		w, d := p.w[i*cols:][:cols], p.delta[i*cols:][:cols]
		if err := rows.ReadRows(w, row); err != nil {
			return nil, fmt.Errorf("tensor %q: %w", name, err)
		}
		copy(d, w)
		for _, c := range changes {
			if err := c.Apply(d, row); err != nil {
				return nil, fmt.Errorf("tensor %q: %w", name, err)
			}
		}
		kernel.AddScaled(d, -1, w)
	}
	p.square, p.deltaSquare = kernel.SumSquares(p.w), kernel.SumSquares(p.delta)
	return p, nil
}

// whole returns the norm that the whole tensor has, if all of it is like the probe.
func (p *probe) whole(square float64) float64 {
	return math.Sqrt(square * float64(p.info.Shape.Rows()) / float64(len(p.at)))
}

// loses returns the relative error of the rows in an encoding. Rows that were decoded
// from it hardly lose anything; mixed with their neighbours, each pair with the weights
// of a rotation by 45 degrees, they lose what others of their size do.
func (p *probe) loses(e encoding, mixed bool) (float64, error) {
	x, cols := p.w, len(p.w)/len(p.at)
	if mixed {
		x = make([]float32, len(p.w))
		for i := range p.at {
			a, b := p.w[i*cols:][:cols], p.w[(i+1)%len(p.at)*cols:][:cols]
			for j := range a {
				x[i*cols+j] = (a[j] + b[j]) * (math.Sqrt2 / 2)
			}
		}
	}
	shape := tensor.Shape{int64(len(p.at)), int64(cols)}
	if !e.fits(shape) {
		return 0, nil
	}
	t, err := newTrial(e, shape)
	if err != nil {
		return 0, err
	}
	if err := t.add(x, make([]float32, len(x)), nil); err != nil {
		return 0, err
	}
	o, err := t.outcome()
	return o.relRMS(), err
}

// survives finds out how much of the delta is in what was written.
func (p *probe) survives(x *moduleLoss, m *mergedModel, out *model) error {
	if x.Delta == 0 {
		return nil
	}
	_, now, err := codecs.OpenFrom(out.view, p.info.Name)
	if err != nil {
		return nil // under another name, or not there
	}
	w := p.w
	if m.before != nil {
		// As the adapter saw it.
		if _, rows, err := codecs.OpenFrom(m.view, p.info.Name); err == nil {
			w = make([]float32, len(p.w))
			if err := p.read(w, rows); err != nil {
				return err
			}
		}
	}
	got := make([]float32, len(p.w))
	if err := p.read(got, now); err != nil {
		return err
	}
	kernel.AddScaled(got, -1, w)
	var dot float64
	for i, d := range p.delta {
		dot += float64(d) * float64(got[i])
	}
	s := dot / p.deltaSquare
	kernel.AddScaled(got, -1, p.delta)
	n := math.Sqrt(kernel.SumSquares(got) / p.deltaSquare)
	x.Survived, x.Noise = &s, &n
	return nil
}

// read reads the rows of the probe.
func (p *probe) read(dst []float32, rows tensor.Rows) error {
	cols := len(p.w) / len(p.at)
	for i, row := range p.at {
		if err := rows.ReadRows(dst[i*cols:][:cols], row); err != nil {
			return err
		}
	}
	return nil
}

// What the figures are worth a word from.
const (
	// baseMatters is the error over the delta above which the base of a merge does more
	// to the weights than the adapter. Far above it, at 10 to 150 for Falcon-H1, a merge
	// into the other base is known to have failed.
	baseMatters = 1.0

	// mostSurvived is the part of a delta below which too much of it is lost.
	mostSurvived = 0.9
)

func (l *mergeLoss) text(w io.Writer) {
	if b := l.Base; b != nil {
		fmt.Fprintf(w, "  quantization error over delta, %s for %s (%s): median %.3g, largest %.3g in %s\n", l.How, l.Type, l.Source, b.Median, b.Worst, b.Module)
	}
	if s := l.Survived; s != nil {
		fmt.Fprintf(w, "  of the deltas, in what was written: median %.0f %%, least %.0f %% in %s\n", 100*s.Median, 100*s.Worst, s.Module)
	}
	for _, n := range l.warnings() {
		fmt.Fprintf(w, "warning: %s\n", n)
	}
}

// warnings say when what was found matters.
func (l *mergeLoss) warnings() []string {
	var out []string
	if b := l.Base; b != nil && b.Median >= baseMatters {
		what := fmt.Sprintf("quantizing the base to %s changes it %.3g times as much as the adapter does: the adapter fits the base that it was trained on, and no other", l.Type, b.Median)
		switch l.How {
		case "measured":
			what += "; if that was the original, leave out --through"
		case "estimated":
			what += "; if that was not " + l.was + ", give --base ORIGINAL"
		default:
			what += "; it was merged into the weights as they are: --through " + l.Type + " merges into those that it was trained on"
		}
		out = append(out, what)
	}
	if s := l.Survived; s != nil && s.Median < mostSurvived {
		out = append(out, fmt.Sprintf("rounding to %s left %.0f %% of the delta (median): a weak fine-tune is lost; without --quantize it is kept", l.out, 100*s.Median))
	}
	return out
}

// report returns the account as a page has it.
func (l *mergeLoss) report(m *mergedModel, out string) *report.Report {
	number := func(v *float64) *report.Number {
		if v == nil {
			return nil
		}
		n := report.Number(*v)
		return &n
	}
	r := &report.Merge{Base: l.Type, Source: l.Source, How: l.How, Warnings: l.warnings(), Modules: []report.MergedModule{}}
	if l.Base == nil {
		r.How = ""
	}
	for _, x := range l.Modules {
		r.Modules = append(r.Modules, report.MergedModule{
			Name: x.Name, Norm: report.Number(x.Norm), Delta: report.Number(x.Delta),
			Error: number(x.Error), Ratio: number(x.Ratio), Survived: number(x.Survived), Noise: number(x.Noise),
		})
	}
	return &report.Report{
		Program: "nibble " + version, Command: "nibble " + commandLine(os.Args[1:]), In: m.Path, Out: out, Reference: m.Path,
		Model: m.words(), Tensors: []report.Tensor{}, Merge: r, Notes: m.notes,
	}
}
