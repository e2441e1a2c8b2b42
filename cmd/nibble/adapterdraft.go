package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/seed18967229/nibble/formats/peft"
	"github.com/seed18967229/nibble/internal/fsx"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/kernel"
	"github.com/seed18967229/nibble/merge/factors"
	"github.com/seed18967229/nibble/pipeline"
	"github.com/seed18967229/nibble/tensor"
)

// A draft is an adapter that is being made: pairs on disk, in a file that has no name, until
// all are there and it can be said what rank each gets.
type draft struct {
	file    *os.File
	named   bool
	size    int64
	modules []*draftModule
	rest    []draftTensor
}

// draftModule is a pair of a draft.
type draftModule struct {
	factors.Module
	spectrum factors.Spectrum // where it was decomposed, and may be cut
	energy   float64          // of the whole delta, 0 for that of the spectrum
	at       int64            // in the file: B, then A
}

// draftTensor is a tensor that is stored whole. each gives its values in parts.
type draftTensor struct {
	info tensor.Info
	each func(f func(values []float32, at int64) error) error
}

// newDraft returns a draft of what will be at out, which is checked to be free: what comes
// before it is written may take long.
func (a *app) newDraft(out string) (*draft, error) {
	d, err := fsx.CreateDir(out, a.force, holdsAdapter)
	if err != nil {
		return nil, err
	}
	if err := d.Abort(); err != nil {
		return nil, err
	}
	f, err := os.CreateTemp(filepath.Dir(filepath.Clean(out)), ".nibble-draft-*")
	if err != nil {
		return nil, err
	}
	// Without a name it is gone with the program, however that ends. Where an open file
	// must have one, Close takes it.
	return &draft{file: f, named: os.Remove(f.Name()) != nil}, nil
}

func (d *draft) Close() error {
	err := d.file.Close()
	if d.named {
		err = errors.Join(err, os.Remove(d.file.Name()))
	}
	return err
}

// add appends a pair. m says what it is called and how its A is shaped.
func (d *draft) add(m factors.Module, p *factors.Pair, spectrum factors.Spectrum) error {
	x, err := d.store(m, p, spectrum)
	d.modules = append(d.modules, x)
	return err
}

// store puts a pair in the file.
func (d *draft) store(m factors.Module, p *factors.Pair, spectrum factors.Spectrum) (*draftModule, error) {
	m.Out, m.In, m.Rank, m.Scale = p.Out, p.In, p.Rank, p.Scale
	x := &draftModule{Module: m, spectrum: spectrum, at: d.size}
	for _, part := range [][]float32{p.B, p.A} {
		b := make([]byte, 4*min(len(part), 1<<20))
		for len(part) > 0 {
			n := min(len(part), 1<<20)
			kernel.EncodeF32(b[:4*n], part[:n])
			if _, err := d.file.WriteAt(b[:4*n], d.size); err != nil {
				return nil, err
			}
			d.size += int64(4 * n)
			part = part[n:]
		}
	}
	return x, nil
}

// pair reads one again, cut to a rank.
func (d *draft) pair(m *draftModule, rank int) (*factors.Pair, error) {
	p := &factors.Pair{Out: m.Out, In: m.In, Rank: rank, Scale: m.Scale, B: make([]float32, m.Out*rank), A: make([]float32, rank*m.In)}
	wide := make([]byte, 4*m.Out*m.Rank)
	if _, err := d.file.ReadAt(wide, m.at); err != nil {
		return nil, err
	}
	for i := range m.Out {
		kernel.DecodeF32(p.B[i*rank:][:rank], wide[4*i*m.Rank:][:4*rank])
	}
	wide = slices.Grow(wide[:0], 4*len(p.A))[:4*len(p.A)]
	if _, err := d.file.ReadAt(wide, m.at+4*int64(m.Out)*int64(m.Rank)); err != nil {
		return nil, err
	}
	kernel.DecodeF32(p.A, wide)
	return p, nil
}

// shapes returns what A and B of a module are at a rank.
func (m *draftModule) shapes(rank int) (a, b tensor.Shape) {
	a, b = tensor.Shape{int64(rank), int64(m.In)}, tensor.Shape{int64(m.Out), int64(rank)}
	if len(m.A.Shape) > 2 { // of a convolution
		a = slices.Concat(tensor.Shape{int64(rank)}, m.A.Shape[1:])
		for range len(a) - 2 {
			b = append(b, 1)
		}
	}
	return a, b
}

// writeDraft stores a draft as a directory of PEFT, modules with these ranks, those of rank 0
// left out. c is completed with what it says of modules.
func (a *app) writeDraft(ctx context.Context, d *draft, out string, c *peft.Config, ranks []int) (err error) {
	var layout []tensor.Info
	var scales []peft.ModuleScale
	for i, m := range d.modules {
		if ranks[i] == 0 {
			continue
		}
		names := m.Delta()
		shapeA, shapeB := m.shapes(ranks[i])
		layout = append(layout, tensor.Info{Name: names[0], DType: tensor.F32, Shape: shapeA}, tensor.Info{Name: names[1], DType: tensor.F32, Shape: shapeB})
		scales = append(scales, peft.ModuleScale{Module: m.Name, Rank: ranks[i], Scale: m.Scale})
	}
	if len(scales) > 0 {
		c.SetModules(scales)
	}
	var total int64
	for _, x := range d.rest {
		layout = append(layout, x.info)
	}
	for _, info := range layout {
		total += 4 * info.Shape.Elems()
	}
	w, err := peft.Create(out, c, layout, a.force)
	if err != nil {
		return err
	}
	bar := a.progress("write", total, bytesUnit)
	defer bar.stop()
	if err := d.put(ctx, w, ranks, bar); err != nil {
		return errors.Join(err, w.Abort())
	}
	if err := w.Finish(); err != nil {
		return errors.Join(err, w.Abort())
	}
	return w.Commit()
}

func (d *draft) put(ctx context.Context, w *peft.Writer, ranks []int, bar *bar) error {
	for i, m := range d.modules {
		if ranks[i] == 0 {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		p, err := d.pair(m, ranks[i])
		if err != nil {
			return err
		}
		names := m.Delta()
		if err := w.Put(names[0], p.A); err != nil {
			return err
		}
		if err := w.Put(names[1], p.B); err != nil {
			return err
		}
		bar.add(4 * int64(len(p.A)+len(p.B)))
	}
	for _, x := range d.rest {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := x.each(func(values []float32, at int64) error {
			bar.add(4 * int64(len(values)))
			return w.PutAt(x.info.Name, values, at)
		}); err != nil {
			return err
		}
	}
	return nil
}

// candidates returns the modules as those that get ranks.
func (d *draft) candidates() []factors.Candidate {
	var out []factors.Candidate
	for _, m := range d.modules {
		out = append(out, factors.Candidate{Out: m.Out, In: m.In, Spectrum: m.spectrum, Energy: m.energy})
	}
	return out
}

// carry adds the tensors of an adapter that are stored whole. Biases that are scaled like a
// product become what they add, times what their module's product was multiplied by if it is
// not any more: by says that for a module.
func (d *draft) carry(ctx context.Context, f *factors.Adapter, by func(module string) float64) {
	for _, info := range f.Rest {
		s := 1.0
		if module, ok := strings.CutSuffix(info.Name, ".lora_B.bias"); ok {
			s = by(module)
		}
		d.copied(ctx, f.Source, info, info.Name, s)
	}
}

// copied adds a tensor of a source under a name, times a number. A value that is not finite is an error.
func (d *draft) copied(ctx context.Context, src tensor.Source, info tensor.Info, as string, times float64) {
	cols := info.Shape.Cols()
	d.rest = append(d.rest, draftTensor{
		info: tensor.Info{Name: as, DType: tensor.F32, Shape: info.Shape},
		each: func(f func(values []float32, at int64) error) error {
			return pipeline.EachPanel(ctx, codecs, src, info.Name, func(w []float32, row int64) error {
				for i, v := range w {
					if v-v != 0 { // NaN or Inf
						return hint.Add(fmt.Errorf("tensor %q: %w: element %d is %v", info.Name, tensor.ErrMalformed, row*cols+int64(i), v),
							"nibble verify lists every tensor with NaN or Inf")
					}
					w[i] = float32(times * float64(v))
				}
				return f(w, row*cols)
			})
		},
	})
}

// budgetFlags are the flags that say what ranks modules get.
type budgetFlags struct {
	rank    int
	energy  float64
	maxSize sizeFlag
}

// budget returns what the flags ask for; other is a number of bytes that are not theirs to
// spend.
func (b *budgetFlags) budget(other int64) (factors.Budget, error) {
	if b.rank < 0 {
		return factors.Budget{}, badUsage(fmt.Errorf("--rank is %d, want 1 or more", b.rank))
	}
	if b.energy < 0 || b.energy > 1 || b.energy != b.energy {
		return factors.Budget{}, badUsage(fmt.Errorf("--energy is %v, want a share between 0 and 1", b.energy))
	}
	out := factors.Budget{Rank: b.rank, Energy: b.energy}
	if b.maxSize > 0 {
		out.Params = max(1, (int64(b.maxSize)-other)/4)
	}
	return out, nil
}
