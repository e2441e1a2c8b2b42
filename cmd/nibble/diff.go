package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"

	"github.com/spf13/cobra"

	"github.com/seed18967229/nibble/formats"
	"github.com/seed18967229/nibble/tensor"
)

// errDifferent is how diff ends if it found a difference. Its result has said
// so.
var errDifferent = errors.New("different")

// diffOptions are the flags of diff.
type diffOptions struct {
	tolerance   float64
	tensorsOnly bool
}

func (a *app) diffCommand() *cobra.Command {
	var o diffOptions
	cmd := &cobra.Command{
		Use:   "diff A B",
		Short: "Compare two models tensor by tensor, whatever their formats",
		Long: `Compare two models, or any two inputs with tensors. Models are compared in
checkpoint form: a GGUF file and the directory that it was made from have the
same tensors. 4-bit and other block types are decoded. Other inputs are compared
by the names that they have.

For each tensor that differs: the largest absolute difference, the root mean
square of the differences relative to that of A, and the cosine between both.
Then what differs in the configurations and tokenizers, or between two GGUF files
in their metadata.

Exit code 0 if all values are equal, up to --tolerance, whatever their types, and
nothing else differs; 1 if not. Keys that say how a file is stored do not count.`,
		Example: "  nibble diff stories260K stories260K.gguf\n  nibble diff stories260K stories260K-nf4 --tolerance 0.5",
		Args:    exactArgs(2),
		RunE:    func(cmd *cobra.Command, args []string) error { return a.diff(cmd.Context(), args[0], args[1], o) },
	}
	f := cmd.Flags()
	f.Float64Var(&o.tolerance, "tolerance", 0, "largest absolute difference between values that are taken for equal")
	f.BoolVar(&o.tensorsOnly, "tensors-only", false, "leave configurations, tokenizers and metadata out")
	return cmd
}

type diffResult struct {
	A         string  `json:"a"`
	B         string  `json:"b"`
	Tolerance float64 `json:"tolerance"`
	Equal     bool    `json:"equal"`

	// Compared counts the tensors that both have, EqualBits those of the same
	// bytes, EqualValues those of the same values besides, Within those up to
	// the tolerance besides.
	Compared    int `json:"compared"`
	EqualBits   int `json:"equal_bits"`
	EqualValues int `json:"equal_values"`
	Within      int `json:"within_tolerance"`

	OnlyA []string `json:"only_a"`
	OnlyB []string `json:"only_b"`

	// The figures of all values compared.
	*figures

	// Tensors are those that are not the same bit for bit.
	Tensors  []tensorDiff `json:"tensors"`
	Metadata []keyDiff    `json:"metadata"`
}

// tensorDiff is how a tensor differs. Where it cannot be compared, Problem says
// why, and there are no figures.
type tensorDiff struct {
	Name    string          `json:"name"`
	DTypes  [2]string       `json:"dtypes"`
	Shapes  [2]tensor.Shape `json:"shapes"`
	Problem string          `json:"problem,omitempty"`
	*figures

	verdict verdict
}

// A verdict is how alike two tensors are.
type verdict uint8

const (
	different verdict = iota
	within
	equalValues
	equalBits
)

// side is one of the inputs of diff.
type side struct {
	*formats.Input
	model *model // nil if it is none that is known
	src   tensor.Source
}

func (a *app) openSide(path string) (*side, error) {
	in, err := formats.Open(path)
	if err != nil {
		return nil, err
	}
	s := &side{Input: in, src: in}
	if !isModel(in) {
		return s, nil
	}
	m := &model{Input: in}
	if err := m.understand(); err != nil {
		a.note("%v; its tensors are compared by the names that they have", err)
		return s, nil
	}
	s.model, s.src = m, m.whole()
	return s, nil
}

func (a *app) diff(ctx context.Context, pathA, pathB string, o diffOptions) error {
	if !(o.tolerance >= 0) || math.IsInf(o.tolerance, 0) {
		return badUsage(fmt.Errorf("--tolerance is %g, want 0 or more", o.tolerance))
	}
	sa, err := a.openSide(pathA)
	if err != nil {
		return err
	}
	defer sa.Close()
	sb, err := a.openSide(pathB)
	if err != nil {
		return err
	}
	defer sb.Close()
	r := &diffResult{A: pathA, B: pathB, Tolerance: o.tolerance, OnlyA: []string{}, OnlyB: []string{}, Tensors: []tensorDiff{}, Metadata: []keyDiff{}}
	pairs := r.pair(sa.src, sb.src)
	if err := a.compare(ctx, r, pairs, sa.src, sb.src); err != nil {
		return err
	}
	if !o.tensorsOnly {
		r.Metadata = append(r.Metadata, compareMetadata(sa, sb)...)
	}
	r.Equal = r.EqualBits+r.EqualValues+r.Within == r.Compared && len(r.OnlyA)+len(r.OnlyB) == 0 && r.countedKeys() == 0
	if err := a.print(r); err != nil || r.Equal {
		return err
	}
	return errDifferent
}

// pairOf is a tensor that both sides have.
type pairOf struct{ a, b tensor.Info }

// pair finds the tensors that both have, in A's order, and lists the others.
func (r *diffResult) pair(a, b tensor.Source) []pairOf {
	var out []pairOf
	for info := range a.All() {
		if other, err := b.Info(info.Name); err == nil {
			out = append(out, pairOf{info, other})
		} else {
			r.OnlyA = append(r.OnlyA, info.Name)
		}
	}
	for info := range b.All() {
		if !tensor.Has(a, info.Name) {
			r.OnlyB = append(r.OnlyB, info.Name)
		}
	}
	r.Compared = len(out)
	return out
}

// obstacle says why the values of a pair cannot be compared, "" if they can.
func (p pairOf) obstacle() string {
	switch {
	case !p.a.Shape.Equal(p.b.Shape):
		return fmt.Sprintf("shapes %v and %v", p.a.Shape, p.b.Shape)
	case p.a.DType == p.b.DType && !p.a.DType.Opaque():
		return "" // their bytes can be, whatever they are
	}
	for _, info := range []tensor.Info{p.a, p.b} {
		if codecs[info.DType] == nil {
			return fmt.Sprintf("no decoder for %v", info.DType)
		}
	}
	return ""
}

// compare reads what both have and fills in the tensors that differ.
func (a *app) compare(ctx context.Context, r *diffResult, pairs []pairOf, srcA, srcB tensor.Source) error {
	var total int64
	for _, p := range pairs {
		total += p.a.Size() + p.b.Size()
	}
	bar := a.progress("compare", total, bytesUnit)
	defer bar.stop()
	parts, err := scan(ctx, a.scanWorkers(2), len(pairs),
		func(i int) []span {
			if pairs[i].obstacle() != "" {
				return nil
			}
			return spansOf(pairs[i].a, pairs[i].b)
		},
		func(i int) (c comparison, err error) {
			if c.a, err = openFlat(srcA, pairs[i].a); err != nil {
				return c, fmt.Errorf("%s: %w", r.A, err)
			}
			if c.b, err = openFlat(srcB, pairs[i].b); err != nil {
				return c, fmt.Errorf("%s: %w", r.B, err)
			}
			return c, nil
		},
		func(c comparison, s span, sc *scratch) (difference, error) {
			defer bar.add(s.size(c.a.info) + s.size(c.b.info))
			return c.span(s, sc)
		})
	if err != nil {
		return err
	}
	var all difference
	for i, p := range pairs {
		t := tensorDiff{
			Name: p.a.Name, Shapes: [2]tensor.Shape{p.a.Shape, p.b.Shape}, Problem: p.obstacle(),
			DTypes: [2]string{describe(srcA, p.a), describe(srcB, p.b)},
		}
		if t.Problem == "" {
			d := difference{bits: p.a.DType == p.b.DType}
			for _, part := range parts[i] {
				d.add(part)
			}
			t.judge(d, r.Tolerance)
			all.add(d)
		}
		switch t.verdict {
		case equalBits:
			r.EqualBits++
			continue
		case equalValues:
			r.EqualValues++
		case within:
			r.Within++
		}
		r.Tensors = append(r.Tensors, t)
	}
	r.figures = all.figures()
	return nil
}

// judge turns the sums into figures and a verdict.
func (t *tensorDiff) judge(d difference, tolerance float64) {
	switch {
	case d.bits:
		t.verdict = equalBits
		return
	case d.blind:
		t.Problem = "other bytes, which nothing decodes"
		return
	case d.nonFinite > 0:
		t.verdict = different
	case d.maxAbs == 0:
		t.verdict = equalValues
	case d.maxAbs <= tolerance:
		t.verdict = within
	}
	t.figures = d.figures()
}

// state says in a few words what a tensor is.
func (t *tensorDiff) state() string {
	if t.NonFinite > 0 {
		return count(t.NonFinite) + " NaN/Inf"
	}
	return [...]string{different: "different", within: "in tolerance", equalValues: "equal values"}[t.verdict]
}

func (r *diffResult) text(w io.Writer) {
	for i, names := range [][]string{r.OnlyA, r.OnlyB} {
		for _, n := range names {
			fmt.Fprintf(w, "only in %c: %s\n", 'A'+i, fit(n, 100))
		}
	}
	if len(r.Tensors) > 0 {
		fmt.Fprintln(w, strings.TrimSpace(fmt.Sprintf(diffRow, "tensor", "types", "max abs", "rel RMS", "cosine", "")))
	}
	for _, t := range r.Tensors {
		kinds := types(t.DTypes)
		if t.Problem != "" {
			fmt.Fprintf(w, "%-44s %-15s %s\n", fit(t.Name, 44), kinds, t.Problem)
			continue
		}
		fmt.Fprintln(w, t.row(fit(t.Name, 44), kinds, t.state()))
	}
	if len(r.Tensors) > 1 {
		fmt.Fprintln(w, strings.TrimSpace(r.row("all values compared", "", "")))
	}
	for _, k := range r.Metadata {
		fmt.Fprintf(w, "%s: %s | %s\n", fit(k.Key, 60), fit(k.A, 25), fit(k.B, 25))
	}
	fmt.Fprintln(w, r.summary())
}

// types writes the types of a pair, without the parameters that some have.
func types(of [2]string) string {
	for i := range of {
		of[i], _, _ = strings.Cut(of[i], " ")
	}
	if of[0] == of[1] {
		return of[0]
	}
	return of[0] + " | " + of[1]
}

// summary is the last line.
func (r *diffResult) summary() string {
	var parts []string
	add := func(n int, format string) {
		if n > 0 {
			parts = append(parts, fmt.Sprintf(format, n))
		}
	}
	if r.Equal {
		add(r.EqualBits, "%d tensors bit for bit")
		add(r.EqualValues, "%d in their values")
		add(r.Within, fmt.Sprintf("%%d within %g", r.Tolerance))
		if len(parts) == 0 {
			parts = []string{"no tensors"}
		}
		return "equal: " + strings.Join(parts, ", ")
	}
	add(r.Compared-r.EqualBits-r.EqualValues-r.Within, fmt.Sprintf("%%d of %d tensors that both have", r.Compared))
	add(len(r.OnlyA), "%d only in A")
	add(len(r.OnlyB), "%d only in B")
	if n := r.countedKeys(); n > 0 {
		parts = append(parts, plural(n, "key")+" of metadata")
	}
	return "different: " + strings.Join(parts, ", ")
}
