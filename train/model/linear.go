package model

import (
	"errors"
	"hash/fnv"
	"math"
	"math/rand/v2"

	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/internal/kernel"
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/train/optim"
)

// Adapter is a low-rank adapter of one linear layer (Hu et al., 2021): to x·Wᵀ
// it adds Scale·(dropout(x)·Aᵀ)·Bᵀ.
type Adapter struct {
	// A is [rank, in], B is [out, rank].
	A, B *optim.Param

	// Scale is alpha/rank, or alpha/sqrt(rank) for rsLoRA.
	Scale float32

	// Dropout is the share of the inputs that is zeroed in training.
	Dropout float32
}

// NewAdapter returns a fresh adapter of the linear layer with weight t: A uniform in
// ±1/sqrt(in) (kaiming_uniform with a = sqrt 5, as PEFT has it) and B zero. The
// values depend on the seed and the module's name alone.
func NewAdapter(t arch.Tensor, rank int, scale, dropout float32, seed uint64) *Adapter {
	module, in, out := t.Module(), t.In(), t.Out()
	uniform := func(dst []float32) error {
		rng := rand.New(rand.NewPCG(seed, nameHash(module)))
		bound := 1 / math.Sqrt(float64(in))
		for i := range dst {
			dst[i] = float32((2*rng.Float64() - 1) * bound)
		}
		return nil
	}
	zero := func(dst []float32) error {
		clear(dst)
		return nil
	}
	return &Adapter{
		A:       &optim.Param{Name: module + ".lora_A.weight", Shape: tensor.Shape{int64(rank), int64(in)}, Layer: t.Layer, Init: uniform, Decay: true},
		B:       &optim.Param{Name: module + ".lora_B.weight", Shape: tensor.Shape{int64(out), int64(rank)}, Layer: t.Layer, Init: zero, Decay: true},
		Scale:   scale,
		Dropout: dropout,
	}
}

// Fill brings A and B into memory.
func (a *Adapter) Fill() error { return errors.Join(a.A.Fill(), a.B.Fill()) }

func nameHash(s string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(s))
	return h.Sum64()
}

func (a *Adapter) rank() int { return int(a.A.Shape[0]) }

// linear is one linear layer of a leased block.
type linear struct {
	weight  arch.Tensor
	w       kernel.Matrix
	out, in int
	bias    []float32
	lora    *Adapter

	// transposed says that w is [in, out] (GPT-2's Conv1D).
	transposed bool

	// Where gradients go; nil for what is frozen.
	dw, dbias []float32

	observer Observer // or nil
}

// observe tells the observer of the n rows of x, which the weight is about to be
// multiplied with.
func (l *linear) observe(x []float32, n int) {
	if l.observer != nil {
		l.observer(l.weight, x, n)
	}
}

// forward computes y = x·Wᵀ + bias + adapter for the n rows of x.
func (l *linear) forward(s *arena, y, x []float32, n int, d dropout) error {
	l.observe(x, n)
	product := kernel.MulT
	if l.transposed {
		product = kernel.Mul
	}
	if err := product(y, x, n, l.w, false); err != nil {
		return err
	}
	if l.bias != nil {
		kernel.AddRow(y, l.bias, n)
	}
	if l.lora == nil {
		return nil
	}
	mark := s.next
	defer func() { s.next = mark }()
	r := l.lora.rank()
	u := s.take(n * r)
	// Matrices in memory cannot fail to decode.
	_ = kernel.MulT(u, d.drop(s, x, l.lora), n, kernel.Dense{Data: l.lora.A.Data, Rows: r, Cols: l.in}, false)
	kernel.Scale(u, l.lora.Scale)
	_ = kernel.MulT(y, u, n, kernel.Dense{Data: l.lora.B.Data, Rows: l.out, Cols: r}, true)
	return nil
}

// backward adds to dx the gradient with respect to x, given x and the gradient
// dy of the result, and the gradients of what is trained to theirs.
func (l *linear) backward(s *arena, dx, dy, x []float32, n int, d dropout) error {
	product := kernel.Mul
	if l.transposed {
		product = kernel.MulT
	}
	if err := product(dx, dy, n, l.w, true); err != nil {
		return err
	}
	switch {
	case l.dw == nil:
	case l.transposed:
		kernel.AddOuter(l.dw, x, dy, n, l.in, l.out)
	default:
		kernel.AddOuter(l.dw, dy, x, n, l.out, l.in)
	}
	if l.dbias != nil {
		kernel.SumRows(l.dbias, dy, n)
	}
	if l.lora == nil {
		return nil
	}
	mark := s.next
	defer func() { s.next = mark }()
	r := l.lora.rank()
	a, b := kernel.Dense{Data: l.lora.A.Data, Rows: r, Cols: l.in}, kernel.Dense{Data: l.lora.B.Data, Rows: l.out, Cols: r}
	u, t := s.take(n*r), s.take(n*r)
	xd := d.drop(s, x, l.lora)
	_ = kernel.MulT(u, xd, n, a, false)
	kernel.Scale(u, l.lora.Scale)
	kernel.AddOuter(l.lora.B.Grad, dy, u, n, l.out, r)
	_ = kernel.Mul(t, dy, n, b, false)
	kernel.Scale(t, l.lora.Scale)
	kernel.AddOuter(l.lora.A.Grad, t, xd, n, r, l.in)
	if l.lora.Dropout == 0 || !d.on {
		_ = kernel.Mul(dx, t, n, a, true)
		return nil
	}
	dxd := xd // which is not needed any more
	_ = kernel.Mul(dxd, t, n, a, false)
	d.mask(dxd, dxd, l.lora)
	kernel.Add(dx, dxd)
	return nil
}

// dropout says which inputs of adapters are zeroed: by a hash of the key, the
// adapter and the element, so that the backward pass, or another run, finds the
// same ones whatever happened before.
type dropout struct {
	on  bool
	key uint64
}

// drop returns x with some inputs zeroed and the others scaled to make up.
func (d dropout) drop(s *arena, x []float32, a *Adapter) []float32 {
	if a.Dropout == 0 || !d.on {
		return x
	}
	y := s.take(len(x))
	d.mask(y, x, a)
	return y
}

func (d dropout) mask(y, x []float32, a *Adapter) {
	seed := mix(d.key ^ nameHash(a.A.Name))
	threshold := uint64(float64(a.Dropout) * (1 << 53))
	keep := 1 / (1 - a.Dropout)
	for i, v := range x {
		if mix(seed+uint64(i))>>11 < threshold {
			y[i] = 0
		} else {
			y[i] = v * keep
		}
	}
}

// mix is the output function of splitmix64 (Steele et al., 2014).
func mix(z uint64) uint64 {
	z += 0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}
