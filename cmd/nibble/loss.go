package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
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

	// kept says of tensors, by name, why they were not quantized; choice how types
	// were chosen. They are filled in while the model is quantized.
	kept   map[string]string
	choice *report.Choice
}

func lossFlags(cmd *cobra.Command, o *lossOptions) {
	cmd.Flags().StringVar(&o.report, "report", "", "write what was lost to a .html or .json file, or both to a directory")
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
	if err := run(a, ctx, in, out, o); err != nil || o.gguf.dryRun {
		return err
	}
	return a.account(ctx, in, out, &o.loss)
}

// account reads back what was written and measures what it lost, if that was asked for
// or if the input was quantized already.
func (a *app) account(ctx context.Context, in, out string, o *lossOptions) error {
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
			return err
		}
		list = append(list, m)
	}
	src := list[len(list)-2]
	double := src.quantized()
	if !asked && !double {
		return nil
	}
	r, err := a.measureLoss(ctx, list, o.kept)
	if err != nil {
		return err
	}
	r.In, r.Out, r.Type = in, out, o.typ
	if r.Choice = o.choice; r.Choice != nil {
		r.Type = "a mix of types"
	}
	if double {
		inputLoss(r, src)
	}
	if err := a.writeReport(o.files, r); err != nil {
		return err
	}
	if !double && o.original == "" && !a.json {
		return nil
	}
	result := &lossResult{Error: r.Error, Double: r.Double, Original: o.original, Reports: o.files.paths()}
	if r.Double != nil {
		result.Warning = doubleWarning(r, o.original)
	}
	return a.print(result)
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
func (a *app) measureLoss(ctx context.Context, models []*model, kept map[string]string) (*report.Report, error) {
	var v versions
	for _, m := range models {
		v = append(v, form{m.Path, m.tensors()})
	}
	n := len(models) - 1
	out, input := models[n], models[n-1]
	r := &report.Report{
		Program: "nibble " + version, Command: "nibble " + commandLine(os.Args[1:]), In: input.Path, Out: out.Path, Reference: models[0].Path,
		Model: input.words(), Tensors: []report.Tensor{},
	}
	var infos []tensor.Info
	var total int64
	for info := range v[n-1].src.All() {
		if written, err := v[n].src.Info(info.Name); err == nil {
			infos = append(infos, written)
			total += info.Size() + written.Size()
		} else {
			r.Notes = append(r.Notes, fmt.Sprintf("tensor %q of %s is not in %s", info.Name, input.Path, out.Path))
		}
	}
	for info := range v[n].src.All() {
		if !tensor.Has(v[n-1].src, info.Name) {
			r.Notes = append(r.Notes, fmt.Sprintf("tensor %q of %s is not in %s", info.Name, out.Path, input.Path))
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
			if n > 1 && before.quantized(info.Name) {
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
		if !coded {
			t.Kept = keptBecause(roles, info)
			for _, name := range append(after.origins(info.Name), info.Name) {
				if why := kept[name]; why != "" {
					t.Kept = why
				}
			}
		}
		sums.add(&t, coded)
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

// kindSums adds tensors up by how they are stored.
type kindSums struct {
	kinds []report.Kind
	sums  []distortion.Figures
	all   distortion.Figures // of what was quantized
}

func (s *kindSums) add(t *report.Tensor, coded bool) {
	at := -1
	for i, k := range s.kinds {
		if k.Type == t.Type {
			at = i
		}
	}
	if at < 0 {
		at = len(s.kinds)
		s.kinds, s.sums = append(s.kinds, report.Kind{Type: t.Type}), append(s.sums, distortion.Figures{})
	}
	k := &s.kinds[at]
	k.Tensors++
	k.Size = report.NewSize(k.Weights+t.Weights, k.Bytes+t.Bytes)
	if t.Error == nil {
		return
	}
	f := t.Error.Figures()
	s.sums[at].Add(&f)
	if coded {
		k.Error = report.NewLoss(s.sums[at])
		s.all.Add(&f)
	}
}

// storage says how the tensors of a model's view are stored on disk.
type storage struct {
	m     *model
	sizes map[string]int64 // of encodings that lie in several tensors
}

// storage finds out how the model is stored.
func (m *model) storage() *storage {
	s := &storage{m: m, sizes: make(map[string]int64)}
	if m.stored == nil || m.stored == tensor.Source(m.Input) {
		return s
	}
	for info := range m.Input.All() {
		if owner := m.ownerOf(info.Name); owner != "" {
			s.sizes[owner] += info.Size()
		}
	}
	return s
}

// ownerOf returns the quantized weight that a stored tensor is, or belongs to.
func (m *model) ownerOf(name string) string {
	for at := name; ; {
		for _, weight := range []string{at, at + ".weight"} {
			if info, err := m.stored.Info(weight); err == nil && info.DType.Opaque() {
				return weight
			}
		}
		dot := strings.LastIndexByte(at, '.')
		if dot < 0 {
			return ""
		}
		at = at[:dot]
	}
}

// origins returns the stored tensors that one of the view is made of.
func (s *storage) origins(name string) []string {
	if s.m.view == nil {
		return []string{name}
	}
	return s.m.view.Origin(name).From
}

// kind names how a tensor is stored.
func (s *storage) kind(name string) string { return kindsOf(s.m.original(), s.origins(name)) }

// quantized reports whether a tensor is stored in an encoding that no arithmetic is
// done in.
func (s *storage) quantized(name string) bool {
	for _, from := range s.origins(name) {
		if info, err := s.m.original().Info(from); err == nil && (info.DType.Opaque() || blockType(info.DType)) {
			return true
		}
	}
	return false
}

// bytes returns what a tensor of the view takes on disk: of one that holds several, its
// share.
func (s *storage) bytes(info tensor.Info) int64 {
	var n, elems int64
	for _, from := range s.origins(info.Name) {
		stored, err := s.m.original().Info(from)
		if err != nil {
			return info.Size()
		}
		elems += stored.Shape.Elems()
		if size, ok := s.sizes[from]; ok {
			n += size
		} else {
			n += stored.Size()
		}
	}
	if elems == 0 {
		return n
	}
	if own := info.Shape.Elems(); own != elems {
		return int64(math.Round(float64(n) * float64(own) / float64(elems)))
	}
	return n
}

// keptRoles says why matrices of some roles are not quantized.
var keptRoles = map[arch.Role]string{
	arch.Embedding: "embeddings: rows are looked up, not multiplied with",
	arch.Position:  "embeddings: rows are looked up, not multiplied with",
	arch.Head:      "output head",
	arch.Router:    "router: it picks the experts",
}

// keptBecause says why a tensor is not quantized that no rule of the run named.
func keptBecause(roles map[string]arch.Role, info tensor.Info) string {
	if len(info.Shape) < 2 {
		return "norms, biases and other vectors: few weights, and each matters"
	}
	if why := keptRoles[roles[info.Name]]; why != "" {
		return why
	}
	return "no linear layer of the model's blocks"
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
