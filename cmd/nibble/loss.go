package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/formats"
	"github.com/seed18967229/nibble/formats/gguf/ggml"
	"github.com/seed18967229/nibble/internal/distortion"
	"github.com/seed18967229/nibble/internal/fsx"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/report"
	"github.com/seed18967229/nibble/nf4"
	"github.com/seed18967229/nibble/tensor"
)

// lossOptions are the flags of the account of what was lost.
type lossOptions struct {
	report, original string
	files            *reportFiles
	typ              string // as the report names it
	converted        bool   // not quantized, so that there is nothing to be warned of

	// kept says of tensors, by name, why they were not quantized; choice how types
	// were chosen. They are filled in while the model is quantized.
	kept   map[string]string
	choice *report.Choice
}

// reportFlag adds the flag of the commands that can say what their output lost.
func reportFlag(cmd *cobra.Command, o *lossOptions) {
	cmd.Flags().StringVar(&o.report, "report", "", "write what was lost to a .html or .json file, or both to a directory")
}

func lossFlags(cmd *cobra.Command, o *lossOptions) {
	reportFlag(cmd, o)
	cmd.Flags().StringVar(&o.original, "original", "", "the model that IN, if it is quantized, was made from: measure against it")
}

// keep notes why a tensor was not quantized.
func (o *lossOptions) keep(name, reason string) {
	if o.kept == nil {
		o.kept = make(map[string]string)
	}
	o.kept[name] = reason
}

// check parses the flags, before the work.
func (o *lossOptions) check(a *app, in, out string) (err error) {
	if o.original != "" {
		if err := fsx.CheckOutput(out, o.original); err != nil {
			return badUsage(err)
		}
	}
	o.files, err = a.parseReport(o.report, in, out, o.original)
	return err
}

// lossResult is what the account ends with, where there is something to say beside
// the report.
type lossResult struct {
	Warning  string         `json:"warning,omitempty"`
	Double   *report.Double `json:"double_loss,omitempty"`
	Original string         `json:"original,omitempty"`
	Error    *report.Loss   `json:"error"`
	Reports  []string       `json:"reports,omitempty"`
}

func (r *lossResult) text(w io.Writer) {
	if r.Warning != "" {
		fmt.Fprintf(w, "warning: %s\n", r.Warning)
	}
}

// withAccount runs what quantizes in to out, and gives the account of what was lost.
func (a *app) withAccount(ctx context.Context, in, out string, o *quantizeOptions, run quantizeFunc) error {
	if o.gguf.dryRun && o.loss.report+o.loss.original != "" {
		return badUsage(hint.Add(errors.New("--report and --original measure what was written, and --dry-run writes nothing"), "leave one of them out"))
	}
	o.loss.typ = strings.ToUpper(o.typ)
	if err := o.loss.check(a, in, out); err != nil {
		return err
	}
	// As JSON the account is a part of the one result; as text it follows when it is
	// there, for it may take a while.
	held := a.holding
	a.holding = held || a.json
	err := run(a, ctx, in, out, o)
	a.holding = held
	if err != nil {
		return err
	}
	var loss *lossResult
	if !o.gguf.dryRun {
		loss, err = a.account(ctx, in, out, &o.loss)
	}
	return errors.Join(err, a.printAccounted(a.held, o.loss.choice, loss))
}

// printAccounted prints what is to be said beside a result that was printed or, as JSON,
// both together.
func (a *app) printAccounted(r result, choice *report.Choice, loss *lossResult) error {
	if !a.json {
		if loss != nil {
			loss.text(a.out)
		}
		return nil
	}
	last := a.last
	err := a.print(&accountedResult{r, choice, loss})
	a.last = last
	return err
}

// accountedResult is a result with the account of what was lost, as JSON.
type accountedResult struct {
	result
	Choice *report.Choice
	Loss   *lossResult
}

// MarshalJSON adds the account to the members of the result.
func (r *accountedResult) MarshalJSON() ([]byte, error) {
	text, err := json.Marshal(r.result)
	if err != nil {
		return nil, err
	}
	for _, m := range []struct {
		name  string
		value any
		has   bool
	}{{"choice", r.Choice, r.Choice != nil}, {"loss", r.Loss, r.Loss != nil}} {
		if !m.has {
			continue
		}
		value, err := json.Marshal(m.value)
		if err != nil {
			return nil, err
		}
		text = fmt.Appendf(text[:len(text)-1], ",%q:%s}", m.name, value)
	}
	return text, nil
}

// account reads back what was written and measures what it lost, if that was asked for
// or if the input was quantized already.
func (a *app) account(ctx context.Context, in, out string, o *lossOptions) (*lossResult, error) {
	asked := o.files != nil || o.original != ""
	paths := []string{in, firstPart(out)}
	if o.original != "" {
		paths = append([]string{o.original}, paths...)
	}
	var list []*model
	defer func() {
		for _, m := range list {
			m.Close()
		}
	}()
	for _, path := range paths {
		m, err := openMeasured(path)
		if err != nil {
			return nil, err
		}
		list = append(list, m)
	}
	src := list[len(list)-2]
	double := src.quantized() && !o.converted
	if !asked && !double {
		return nil, nil
	}
	r, err := a.measureLoss(ctx, list, o)
	if err != nil {
		return nil, err
	}
	r.In, r.Out, r.Type = in, out, o.typ
	if r.Choice = o.choice; r.Choice != nil {
		r.Type = "a mix of types"
	}
	if double {
		inputLoss(r, src)
	} else {
		r.Double = nil
	}
	if err := a.writeReport(o.files, r); err != nil {
		return nil, err
	}
	result := &lossResult{Error: r.Error, Double: r.Double, Original: o.original, Reports: o.files.paths()}
	if r.Double != nil {
		result.Warning = doubleWarning(r, o.original)
	}
	return result, nil
}

// openMeasured opens a model to be measured. A GGUF model of a family that nibble does
// not know has its tensors as they are stored.
func openMeasured(path string) (*model, error) {
	in, err := formats.Open(path)
	if err != nil {
		return nil, err
	}
	m := &model{Input: in}
	switch err := m.understand(); {
	case err == nil:
	case in.GGUF != nil:
		m.stored, m.view, m.arch = in, nil, nil
	default:
		in.Close()
		return nil, err
	}
	return m, nil
}

// tensors returns all tensors that can be measured, in checkpoint form where the family
// is known.
func (m *model) tensors() tensor.Source {
	if m.view == nil {
		return m.stored
	}
	return m.whole()
}

// firstPart returns the first of the parts that a GGUF file was written in, or the path
// itself.
func firstPart(path string) string {
	if _, err := os.Stat(path); err == nil || !isGGUF(path) {
		return path
	}
	if parts, err := filepath.Glob(globText(path[:len(path)-len(".gguf")]) + "-00001-of-[0-9][0-9][0-9][0-9][0-9].gguf"); err == nil && len(parts) == 1 {
		return parts[0]
	}
	return path
}

// globText returns the pattern that matches that text.
func globText(s string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(s)
}

// measureLoss compares the last of the models with the first, tensor by tensor. With
// three, the one between is what was quantized.
func (a *app) measureLoss(ctx context.Context, models []*model, o *lossOptions) (*report.Report, error) {
	var v versions
	for _, m := range models {
		v = append(v, form{m.Path, m.tensors()})
	}
	n := len(models) - 1
	out, input := models[n], models[n-1]
	r := &report.Report{
		Program: "nibble " + version, Command: "nibble " + commandLine(os.Args[1:]), In: input.Path, Out: out.Path, Reference: models[0].Path,
		Model: input.words(), Converted: o.converted, Tensors: []report.Tensor{},
	}
	var infos []tensor.Info
	var total int64
	var lost, made []string
	for info := range v[n-1].src.All() {
		if written, err := v[n].src.Info(info.Name); err == nil {
			infos = append(infos, written)
			total += info.Size() + written.Size()
		} else {
			lost = append(lost, info.Name)
		}
	}
	for info := range v[n].src.All() {
		if !tensor.Has(v[n-1].src, info.Name) {
			made = append(made, info.Name)
		}
	}
	for _, x := range []struct {
		names    []string
		has, not *model
	}{{lost, input, out}, {made, out, input}} {
		if len(x.names) > 0 {
			r.Notes = append(r.Notes, fmt.Sprintf("%s of %s not in %s: %s", plural(len(x.names), "tensor"), x.has.Path, x.not.Path, listed(x.names)))
		}
	}
	roles, rank := make(map[string]arch.Role), make(map[string]int)
	if input.arch != nil {
		for i, t := range input.arch.Tensors() {
			roles[t.Name], rank[t.Name] = t.Role, i+1
		}
	}
	slices.SortStableFunc(infos, func(a, b tensor.Info) int {
		// What the family's table does not have comes last.
		return cmp.Compare(uint(rank[a.Name]-1), uint(rank[b.Name]-1))
	})
	before, after := input.storage(), out.storage()
	found := make([]*losses, len(infos))
	notes := make([]string, len(infos))
	bar := a.progress("measure", total, bytesUnit)
	defer bar.stop()
	err := each(ctx, a.scanWorkers(int64(len(v))), len(infos), func(ctx context.Context, i int) error {
		var err error
		if old, err := v[n-1].src.Info(infos[i].Name); err == nil {
			defer bar.add(old.Size() + infos[i].Size())
		}
		found[i], err = v.measure(ctx, infos[i].Name)
		if errors.Is(err, tensor.ErrNotFound) || errors.Is(err, errShapes) {
			notes[i] = err.Error()
			return nil
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	sums := &kindSums{}
	var was, is [2]int64 // weights, bytes
	var this, inputs distortion.Figures
	for i, info := range infos {
		t := report.Tensor{
			Name: info.Name, Shape: append([]int64{}, info.Shape...), Was: before.kind(info.Name), Type: after.kind(info.Name),
			Size: report.NewSize(info.Shape.Elems(), after.bytes(info)),
		}
		is[0], is[1] = is[0]+t.Weights, is[1]+t.Bytes
		if old, err := v[n-1].src.Info(info.Name); err == nil {
			was[0], was[1] = was[0]+old.Shape.Elems(), was[1]+before.bytes(old)
		}
		coded := after.quantized(info.Name)
		if f := found[i]; f != nil {
			total := f.against[n-1]
			t.Error = report.NewLoss(total)
			if n > 1 {
				t.Input = report.NewLoss(f.against[0])
			}
			if coded {
				if f.last != nil {
					this.Add(f.last)
				} else {
					this.Add(&total)
				}
				inputs.Add(&f.against[0])
			}
		}
		if notes[i] != "" {
			r.Notes = append(r.Notes, notes[i])
		}
		if !coded && !o.converted {
			t.Kept = keptBecause(roles, info)
			for _, name := range append(after.origins(info.Name), info.Name) {
				if why := o.kept[name]; why != "" {
					t.Kept = why
				}
			}
		}
		sums.add(&t, coded || o.converted)
		r.Tensors = append(r.Tensors, t)
	}
	r.Before, r.After = report.NewSize(was[0], was[1]), report.NewSize(is[0], is[1])
	r.Kinds, r.Error = sums.kinds, report.NewLoss(sums.all)
	if input.quantized() {
		r.Double = &report.Double{This: report.NewLoss(this)}
		if n > 1 {
			r.Double.InputError, r.Double.Both = report.NewLoss(inputs), r.Error
		}
	}
	return r, nil
}

// words says what a model is.
func (m *model) words() string {
	if m.arch == nil {
		return ""
	}
	return fmt.Sprintf("%s, %d layers of %d", m.arch.Classes[0], m.arch.NumHiddenLayers, m.arch.HiddenSize)
}

// inputLoss says what is known of the loss of an input that was quantized.
func inputLoss(r *report.Report, in *model) {
	kinds := make(map[string]int64)
	var main tensor.Info
	var most int64
	for info := range in.source().All() {
		if info.DType.Opaque() || blockType(info.DType) {
			k := describe(in.source(), info)
			kinds[k] += info.Shape.Elems()
			if kinds[k] > most {
				most, main = kinds[k], info
			}
		}
	}
	r.Double.Input = describe(in.source(), main)
	if e, ok := expectedLoss(in.source(), main); ok && r.Double.InputError == nil {
		n := report.Number(e)
		r.Double.Expected = &n
	}
}

// expectedLoss returns the relative RMS error of normally distributed weights that are
// stored as a tensor is: measured where nibble can store them, else what the decoder's
// package vouches for.
func expectedLoss(src tensor.Source, info tensor.Info) (float64, bool) {
	const n = 1 << 16
	r := rand.New(rand.NewPCG(1, 1))
	x, y := make([]float32, n), make([]float32, n)
	for i := range x {
		x[i] = float32(r.NormFloat64())
	}
	if h, err := nf4.Describe(src, info.Name); err == nil {
		enc, err := nf4.NewEncoder(info.DType, int(h.BlockSize), n)
		if err != nil {
			return 0, false
		}
		if _, err := enc.Append(nil, x); err != nil {
			return 0, false
		}
		if !h.Double {
			return enc.RelRMS(nil), true
		}
		return enc.RelRMS(nf4.Double(enc.Absmax(), nf4.Mean(enc.Absmax()))), true
	}
	enc, err := codecs.Encoder(info.DType)
	if err != nil || info.DType.Opaque() {
		return ggml.Budget(info.DType)
	}
	flat := tensor.Info{Name: info.Name, DType: info.DType, Shape: tensor.Shape{n / 256, 256}}
	stored := make([]byte, flat.Size())
	enc.Encode(stored, x)
	rows, err := enc.Open(flat, tensor.Memory(stored))
	if err != nil || rows.ReadRows(y, 0) != nil {
		return 0, false
	}
	m := distortion.NewMeter(0)
	m.Add(x, y)
	f := m.Figures()
	return f.RelRMS(), true
}

// doubleWarning is what is said where a quantized model was quantized.
func doubleWarning(r *report.Report, original string) string {
	d := r.Double
	this := percentage(float64(d.This.RelRMS))
	if d.Both != nil {
		return fmt.Sprintf("%s was quantized already (%s): against %s it had lost %s, and %s has lost %s; this run alone lost %s (relative RMS error)",
			r.In, d.Input, original, percentage(float64(d.InputError.RelRMS)), r.Out, percentage(float64(d.Both.RelRMS)), this)
	}
	expected := ""
	if d.Expected != nil {
		expected = fmt.Sprintf("; of normally distributed weights it would be about %s", percentage(float64(*d.Expected)))
	}
	return fmt.Sprintf("%s was quantized already (%s), and this run lost %s more (relative RMS error). What the input had lost is not known%s. Better quantize the original, or name it with --original to measure both",
		r.In, d.Input, this, expected)
}

// percentage writes a part of one.
func percentage(x float64) string { return fmt.Sprintf("%.3g%%", 100*x) }
