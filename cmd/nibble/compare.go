package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"math"
	"os"

	"github.com/seed18967229/nibble/formats/gguf/ftype"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/memory"
	"github.com/seed18967229/nibble/internal/report"
	"github.com/seed18967229/nibble/nf4"
	"github.com/seed18967229/nibble/tensor"
)

// compareResult is what several types would do to a model.
type compareResult struct {
	In     string      `json:"in"`
	Before report.Size `json:"before"`
	*report.Comparison
	Measured int      `json:"tensors_measured"`
	Reports  []string `json:"reports,omitempty"`
}

func (r *compareResult) text(w io.Writer) {
	fmt.Fprintf(w, "%s: %s, %.2f bits per weight; tried on %d matrices, the linear layers of its blocks\n", r.In, memory.FormatSize(r.Before.Bytes), r.Before.Bits, r.Measured)
	const row = "  %-10s %6s %9s %9s %8s %10s %6s  %9s %s\n"
	fmt.Fprintf(w, row, "type", "bits", "error", "mean", "SNR", "model", "bits", "worst", "")
	for _, t := range r.Types {
		fmt.Fprintf(w, row, t.Type, fmt.Sprintf("%.2f", t.Quantized.Bits), percentage(float64(t.RelRMS)), percentage(float64(t.Mean)), fmt.Sprintf("%.1f dB", float64(t.SNR)),
			memory.FormatSize(t.Whole.Bytes), fmt.Sprintf("%.2f", t.Whole.Bits), percentage(float64(t.WorstRelRMS)), fit(t.Worst, 44))
	}
}

// compareTypes tries several types on a model and writes nothing but what it finds.
func (a *app) compareTypes(ctx context.Context, in string, o *quantizeOptions) error {
	list, err := parseCandidates(o.compare, cmp.Or(o.bnb.blockSize, nf4.DefaultBlock), !o.bnb.noDoubleQuant)
	if err != nil {
		return err
	}
	if o.loss.original != "" {
		return badUsage(hint.Add(fmt.Errorf("--original is of what was written, and --compare writes nothing"), "leave it out"))
	}
	files, err := a.parseReport(o.loss.report, in)
	if err != nil {
		return err
	}
	m, err := openModel(in)
	if err != nil {
		return err
	}
	defer m.Close()
	s, err := newSubject(m)
	if err != nil {
		return err
	}
	important, err := o.importances()
	if err != nil {
		return err
	}
	chosen, notes, err := s.chosen(list, important != nil)
	if err != nil {
		return err
	}
	found, err := a.tryAll(ctx, s, func(i int) []encoding {
		if !s.list[i].linear() {
			return nil
		}
		var all []encoding
		for k := range list {
			all = append(all, chosen[k][i])
		}
		return all
	}, important, o.nonFinite())
	if err != nil {
		return fmt.Errorf("%s: %w", in, err)
	}
	r := &report.Report{
		Program: "nibble " + version, Command: "nibble " + commandLine(os.Args[1:]), In: in, Reference: in, Model: m.words(),
		Tensors: []report.Tensor{}, Comparison: &report.Comparison{}, Notes: notes,
	}
	old := m.storage()
	var weights, bytes int64
	measured := 0
	for _, t := range s.list {
		x := report.Tensor{Name: t.Name, Shape: append([]int64{}, t.info.Shape...), Was: old.kind(t.Name), Size: report.NewSize(t.info.Shape.Elems(), old.bytes(t.info))}
		weights, bytes = weights+x.Weights, bytes+x.Bytes
		r.Tensors = append(r.Tensors, x)
		if t.linear() {
			measured++
		}
	}
	r.Before = report.NewSize(weights, bytes)
	for k, c := range list {
		r.Comparison.Types = append(r.Comparison.Types, s.compared(c, chosen[k], found, r.Tensors))
	}
	if m.quantized() {
		r.Notes = append(r.Notes, in+" is quantized already: errors are against what it decodes to, and what it had lost comes on top")
	}
	if err := a.writeReport(files, r); err != nil {
		return err
	}
	for _, n := range r.Notes {
		a.note("note: %s", n)
	}
	return a.print(&compareResult{in, r.Before, r.Comparison, measured, files.paths()})
}

// keeps is the encoding of what a type leaves as it is.
var keeps = encoding{}

// chosen returns, for each candidate, the encoding of each tensor of the list, and what
// there is to say about it.
func (s *subject) chosen(list []candidate, imatrix bool) (out [][]encoding, notes []string, err error) {
	out = make([][]encoding, len(list))
	for k, c := range list {
		out[k] = make([]encoding, len(s.list))
		var mixed []tensor.DType
		if c.mix != nil {
			var fallen []ftype.Choice
			if mixed, fallen, err = s.mixed(ftype.Options{Type: *c.mix, Imatrix: imatrix}); err != nil {
				return nil, nil, fmt.Errorf("%s: %s: %w", s.m.Path, c.name, err)
			}
			if len(fallen) > 0 {
				notes = append(notes, fmt.Sprintf("%s: %s of %d fall back to another type, as %q to %v: %s",
					c.name, plural(len(fallen), "tensor"), len(s.gguf), fallen[0].In.Name, fallen[0].Out.DType, fallen[0].Fallback))
			}
		}
		for i, t := range s.list {
			switch {
			case mixed != nil:
				out[k][i] = encoding{dtype: mixed[s.at[t.GGUFName]]}
				if _, err := codecs.Encoder(out[k][i].dtype); err != nil {
					return nil, nil, fmt.Errorf("%s: %s: tensor %q: %w", s.m.Path, c.name, t.Name, err)
				}
			case t.linear():
				out[k][i] = c.of
			}
		}
	}
	return out, notes, nil
}

// compared sums a candidate up.
func (s *subject) compared(c candidate, chosen []encoding, found []map[encoding]outcome, tensors []report.Tensor) report.Compared {
	r := report.Compared{Type: c.name}
	var all outcome
	var weights, bytes, whole int64
	var mean float64
	n := 0
	for i, t := range s.list {
		e := chosen[i]
		size := tensors[i].Bytes
		if e != keeps {
			size = e.size(t.info.Shape)
		}
		whole += size
		rel := math.NaN()
		if t.linear() {
			o := found[i][e]
			rel = o.relRMS()
			all.square, all.err = all.square+o.square, all.err+o.err
			weights, bytes = weights+t.info.Shape.Elems(), bytes+size
			mean += rel
			n++
			if r.Worst == "" || rel > float64(r.WorstRelRMS) {
				r.Worst, r.WorstRelRMS = t.Name, report.Number(rel)
			}
		}
		r.Tensors = append(r.Tensors, report.Number(rel))
	}
	var total int64
	for _, t := range tensors {
		total += t.Weights
	}
	r.Quantized, r.Whole = report.NewSize(weights, bytes), report.NewSize(total, whole)
	r.RelRMS, r.Mean = report.Number(all.relRMS()), report.Number(mean/float64(max(1, n)))
	r.SNR = report.Number(math.Inf(1))
	if all.err > 0 {
		r.SNR = report.Number(10 * math.Log10(all.square/all.err))
	}
	return r
}
