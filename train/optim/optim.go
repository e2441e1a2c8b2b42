package optim

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"github.com/seed18967229/nibble/internal/kernel"
	"github.com/seed18967229/nibble/tensor"
)

// Param is a tensor that is being trained.
type Param struct {
	Name  string
	Shape tensor.Shape

	// Layer is the number of the block it belongs to, -1 outside the blocks.
	Layer int

	// Init fills dst, which has Shape.Elems elements, with the values before the first
	// step: the same whenever it is called.
	Init func(dst []float32) error

	// Data and Grad have Shape.Elems elements while the parameter is in memory and are
	// nil otherwise. Grad is added to until the optimizer has used it.
	Data, Grad []float32

	// DType is what the values are rounded to after every step: BF16, or F32, which is
	// also what the zero value means.
	DType tensor.DType

	// Decay says that weight decay applies: to matrices, not to norms and
	// biases, as the trainer of transformers has it.
	Decay bool
}

// Fill brings the parameter into memory with its first values and a zero gradient.
func (p *Param) Fill() error {
	n := p.Shape.Elems()
	p.Data, p.Grad = make([]float32, n), make([]float32, n)
	return p.Init(p.Data)
}

// Copy returns an Init of the given values.
func Copy(values []float32) func(dst []float32) error {
	return func(dst []float32) error {
		copy(dst, values)
		return nil
	}
}

// An Optimizer changes parameters by their gradients.
type Optimizer interface {
	// Name is what --optimizer calls it.
	Name() string

	// Step updates every parameter. step counts from 1.
	Step(step int, lr float64, params []*Param)

	// State returns everything a later run needs to go on from here.
	State(params []*Param) tensor.Source

	// Load takes the state that State returned for parameters of the same
	// names and shapes.
	Load(params []*Param, state tensor.Source) error

	// StateBytes returns how much memory the state of a parameter of n
	// elements takes.
	StateBytes(n int64) int64
}

// Options are what optimizers are told besides the learning rate.
type Options struct {
	WeightDecay float64
}

// optimizers is every optimizer there is, by the name --optimizer knows it by.
var optimizers = []struct {
	name string
	make func(o Options) Optimizer
}{
	{"adamw", func(o Options) Optimizer { return newAdamW(o) }},
}

// Names lists the optimizers.
func Names() []string {
	var out []string
	for _, o := range optimizers {
		out = append(out, o.name)
	}
	return out
}

// New returns the optimizer of that name.
func New(name string, o Options) (Optimizer, error) {
	for _, row := range optimizers {
		if row.name == name {
			return row.make(o), nil
		}
	}
	return nil, fmt.Errorf("no optimizer %q (there is: %s)", name, strings.Join(Names(), ", "))
}

// GradNorm returns the Euclidean norm of all gradients together.
func GradNorm(params []*Param) float64 {
	var sum float64
	for _, p := range params {
		sum += kernel.SumSquares(p.Grad)
	}
	return math.Sqrt(sum)
}

// Clip scales all gradients so that their norm is at most limit, as
// torch.nn.utils.clip_grad_norm_ does, and returns the norm before. A limit of 0
// means none.
func Clip(params []*Param, limit float64) float64 {
	norm := GradNorm(params)
	if c := limit / (norm + 1e-6); limit > 0 && c < 1 {
		for _, p := range params {
			kernel.Scale(p.Grad, float32(c))
		}
	}
	return norm
}

// ZeroGrad clears all gradients.
func ZeroGrad(params []*Param) {
	for _, p := range params {
		clear(p.Grad)
	}
}

// floatSource returns F32 tensors in memory as a Source.
func floatSource(params []*Param, suffixes []string, data func(i int, p *Param) []float32) tensor.Source {
	var entries []tensor.Entry
	for _, p := range params {
		for i, suffix := range suffixes {
			values := data(i, p)
			info := tensor.Info{Name: p.Name + suffix, DType: tensor.F32, Shape: p.Shape}
			entries = append(entries, tensor.Entry{Info: info, Open: func() (io.ReaderAt, error) {
				b := make([]byte, 4*len(values))
				kernel.EncodeF32(b, values)
				return bytes.NewReader(b), nil
			}})
		}
	}
	t, err := tensor.NewTable(nil, entries)
	if err != nil {
		panic("optim: two parameters of one name: " + err.Error())
	}
	return t
}

// Values returns the parameters themselves as a Source of F32 tensors.
func Values(params []*Param) tensor.Source {
	return floatSource(params, []string{""}, func(_ int, p *Param) []float32 { return p.Data })
}

// LoadValues fills the parameters from the tensors of the same names.
func LoadValues(params []*Param, src tensor.Source) error {
	for _, p := range params {
		if err := load(p.Data, p.Shape, src, p.Name); err != nil {
			return err
		}
	}
	return nil
}

// load reads one F32 tensor of the given shape.
func load(dst []float32, shape tensor.Shape, src tensor.Source, name string) error {
	info, err := src.Info(name)
	if err != nil {
		return err
	}
	if info.DType != tensor.F32 || !slices.Equal(info.Shape, shape) {
		return fmt.Errorf("tensor %q: %w: %v of %v, want F32 of %v", name, tensor.ErrMalformed, info.DType, info.Shape, shape)
	}
	r, err := src.Raw(name)
	if err != nil {
		return err
	}
	b := make([]byte, info.Size())
	if _, err := io.ReadFull(r, b); err != nil {
		return fmt.Errorf("tensor %q: %w", name, err)
	}
	kernel.DecodeF32(dst, b)
	return nil
}
