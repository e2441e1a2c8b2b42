package optim

import (
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"github.com/seed18967229/nibble/internal/kernel"
	"github.com/seed18967229/nibble/tensor"
)

// An Optimizer changes parameters by their gradients. It owns no memory: what it keeps
// of a parameter from step to step is handed to it, wherever that lies between.
type Optimizer interface {
	// Name is what --optimizer calls it.
	Name() string

	// State lists what is kept of a parameter. All of it is zero before the first
	// step.
	State(p *Param) []Field

	// Step changes one parameter, whose Data and Grad are in memory, and its state: one
	// slice for each Field, in that order. What is F32 lies at multiples of 4 bytes, as
	// the machine has it (kernel.Floats). step counts from 1. Grad may be overwritten.
	Step(step int, lr float64, p *Param, state [][]byte)
}

// Field is one tensor of a state: F32 or U8.
type Field struct {
	// Suffix is what comes after the parameter's name: that of torch or bitsandbytes.
	Suffix string
	DType  tensor.DType
	Shape  tensor.Shape
}

// Info describes a field of a parameter as a tensor.
func (f Field) Info(p *Param) tensor.Info {
	return tensor.Info{Name: p.Name + f.Suffix, DType: f.DType, Shape: f.Shape}
}

// Options are what optimizers are told besides the learning rate.
type Options struct {
	WeightDecay float64

	// Beta1, Beta2 and Eps are those of AdamW; Lion has the betas too.
	Beta1, Beta2, Eps float64

	// Momentum is that of SGD.
	Momentum float64
}

// DefaultOptions are those of transformers' TrainingArguments.
func DefaultOptions() Options { return Options{Beta1: 0.9, Beta2: 0.999, Eps: 1e-8} }

// Validate returns an error if no optimizer can go by the options.
func (o Options) Validate() error {
	for _, v := range []struct {
		name     string
		v, below float64
	}{
		{"weight decay", o.WeightDecay, math.Inf(1)}, {"beta1", o.Beta1, 1}, {"beta2", o.Beta2, 1},
		{"epsilon", o.Eps, math.Inf(1)}, {"momentum", o.Momentum, 1},
	} {
		if !(v.v >= 0 && v.v < v.below) {
			return fmt.Errorf("%s is %v, want at least 0 and below %v", v.name, v.v, v.below)
		}
	}
	return nil
}

// optimizers is every optimizer there is, by the name --optimizer knows it by and
// those it has in transformers (optim). The paged ones give the same results.
var optimizers = []struct {
	name    string
	aliases []string
	make    func(o Options) Optimizer
}{
	{"adamw", []string{"adamw_torch", "adamw_torch_fused", "paged_adamw", "paged_adamw_32bit"}, func(o Options) Optimizer { return adamW{o} }},
	{"adamw_8bit", []string{"adamw_bnb_8bit", "paged_adamw_8bit"}, func(o Options) Optimizer { return adamW8{adamW{o}} }},
	{"lion", []string{"lion_32bit", "paged_lion", "paged_lion_32bit"}, func(o Options) Optimizer { return lion{o} }},
	{"sgd", nil, func(o Options) Optimizer { return sgd{o} }},
	{"adafactor", nil, func(o Options) Optimizer { return adafactor{o} }},
}

// Names lists the optimizers.
func Names() []string {
	var out []string
	for _, o := range optimizers {
		out = append(out, o.name)
	}
	return out
}

// Canonical returns the name that Names has for an optimizer, and unknown ones as they
// are.
func Canonical(name string) string {
	for _, row := range optimizers {
		if slices.Contains(row.aliases, name) {
			return row.name
		}
	}
	return name
}

// Paged reports whether the name asks for a state on disk, as transformers' paged
// optimizers do for one outside the GPU's memory.
func Paged(name string) bool { return strings.HasPrefix(name, "paged_") }

// New returns the optimizer of that name, which may be one of transformers'.
func New(name string, o Options) (Optimizer, error) {
	for _, row := range optimizers {
		if row.name == name || slices.Contains(row.aliases, name) {
			return row.make(o), o.Validate()
		}
	}
	return nil, fmt.Errorf("no optimizer %q (there is: %s)", name, strings.Join(Names(), ", "))
}

// ErrNotFinite is wrapped by errors about NaN and infinities.
var ErrNotFinite = errors.New("not finite")

// ClipScale returns what gradients of that norm are multiplied by so that it is at most
// limit, as torch.nn.utils.clip_grad_norm_ does; 1 is not at all. A limit of 0 means
// none.
func ClipScale(norm, limit float64) float32 {
	if c := limit / (norm + 1e-6); limit > 0 && c < 1 {
		return float32(c)
	}
	return 1
}

// GradNorm returns the Euclidean norm of all gradients together.
func GradNorm(params []*Param) float64 {
	var sum float64
	for _, p := range params {
		sum += kernel.SumSquares(p.Grad)
	}
	return math.Sqrt(sum)
}

// ZeroGrad clears all gradients.
func ZeroGrad(params []*Param) {
	for _, p := range params {
		clear(p.Grad)
	}
}

// elements shares n elements among the processors. A call's bounds do not depend on how
// many there are.
func elements(n int, f func(from, to int)) {
	const group = 1 << 13
	kernel.Parallel((n+group-1)/group, int64(n)*16, func(i int) { f(i*group, min(n, (i+1)*group)) })
}

// Values returns parameters that are in memory as a Source of F32 tensors.
func Values(params []*Param) tensor.Source {
	var entries []tensor.Entry
	for _, p := range params {
		info := p.Info()
		entries = append(entries, tensor.Entry{Info: info, Open: func() (io.ReaderAt, error) {
			cols := info.Shape.Cols()
			return tensor.ReadRowsAt(4*cols, info.Shape.Rows(), func(dst []byte, row int64) error {
				kernel.EncodeF32(dst, p.Data[row*cols:][:len(dst)/4])
				return nil
			}), nil
		}})
	}
	t, err := tensor.NewTable(nil, entries)
	if err != nil {
		panic("optim: two parameters of one name: " + err.Error())
	}
	return t
}

// LoadValues fills parameters that are in memory from the tensors of the same names.
func LoadValues(params []*Param, src tensor.Source) error {
	for _, p := range params {
		if err := Load(kernel.Bytes(p.Data), p.Info(), src); err != nil {
			return err
		}
	}
	return nil
}

// Load reads the tensor that info describes, as the machine has it in memory.
func Load(dst []byte, info tensor.Info, src tensor.Source) error {
	got, err := src.Info(info.Name)
	if err != nil {
		return err
	}
	if got.DType != info.DType || !got.Shape.Equal(info.Shape) {
		return fmt.Errorf("tensor %q: %w: %v of %v, want %v of %v", info.Name, tensor.ErrMalformed, got.DType, got.Shape, info.DType, info.Shape)
	}
	r, err := src.Raw(info.Name)
	if err != nil {
		return err
	}
	if _, err := io.ReadFull(r, dst[:info.Size()]); err != nil {
		return fmt.Errorf("tensor %q: %w", info.Name, tensor.Truncated(err, "the tensor"))
	}
	if info.DType == tensor.F32 {
		kernel.NativeF32(dst[:info.Size()])
	}
	return nil
}
