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
// it adds Scale·(dropout(x)·Aᵀ)·Bᵀ. With a Magnitude it is DoRA (Liu et al., 2024).
// That of the embeddings adds Scale·(B·A)ᵀ to them.
type Adapter struct {
	// A is [rank, in], B is [out, rank]; of embeddings [rank, vocabulary] and
	// [width, rank].
	A, B *optim.Param

	// Magnitude is [out], the length of each row of W + Scale·B·A; nil leaves the rows
	// as long as they become.
	Magnitude *optim.Param

	// Scale is alpha/rank, or alpha/sqrt(rank) for rsLoRA.
	Scale float32

	// Dropout is the share of the inputs that is zeroed in training.
	Dropout float32

	// Initial is the product that the adapter began with where W is to be without it:
	// W - Scale·B·A stands for W then, everywhere. It is nil for adapters that began
	// as nothing.
	Initial *Pair

	norms norms // of DoRA
}

// Pair is two matrices as those of an adapter, read as they are used.
type Pair struct{ A, B kernel.Matrix }

// NewAdapter returns a fresh adapter of the linear layer with weight t: A uniform in
// ±1/sqrt(in) (kaiming_uniform with a = sqrt 5, as PEFT has it) and B zero. The
// values depend on the seed and the module's name alone.
func NewAdapter(t arch.Tensor, rank int, scale, dropout float32, seed uint64) *Adapter {
	module, in, out := t.Module(), t.In(), t.Out()
	bound := 1 / math.Sqrt(float64(in))
	return &Adapter{
		A:       matrix(module+".lora_A.weight", rank, in, t.Layer, random(module, seed, func(r *rand.Rand) float64 { return (2*r.Float64() - 1) * bound })),
		B:       matrix(module+".lora_B.weight", out, rank, t.Layer, zero),
		Scale:   scale,
		Dropout: dropout,
	}
}

// Gaussian makes A begin as normal numbers with a deviation of 1/rank, PEFT's
// init_lora_weights="gaussian".
func (a *Adapter) Gaussian(module string, seed uint64) {
	deviation := 1 / float64(a.rank())
	a.A.Init = random(module, seed, func(r *rand.Rand) float64 { return r.NormFloat64() * deviation })
}

func matrix(name string, rows, cols, layer int, init func(dst []float32) error) *optim.Param {
	return &optim.Param{Name: name, Shape: tensor.Shape{int64(rows), int64(cols)}, Layer: layer, Init: init, Decay: true}
}

// random returns an Init of random numbers that depend on the seed and the name.
func random(name string, seed uint64, number func(r *rand.Rand) float64) func(dst []float32) error {
	return func(dst []float32) error {
		rng := rand.New(rand.NewPCG(seed, nameHash(name)))
		for i := range dst {
			dst[i] = float32(number(rng))
		}
		return nil
	}
}

func zero(dst []float32) error {
	clear(dst)
	return nil
}

// Params returns what is trained of the adapter.
func (a *Adapter) Params() []*optim.Param {
	if a.Magnitude != nil {
		return []*optim.Param{a.A, a.B, a.Magnitude}
	}
	return []*optim.Param{a.A, a.B}
}

// Fill brings what is trained into memory.
func (a *Adapter) Fill() error {
	var errs []error
	for _, p := range a.Params() {
		errs = append(errs, p.Fill())
	}
	return errors.Join(errs...)
}

func nameHash(s string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(s))
	return h.Sum64()
}

func (a *Adapter) rank() int { return int(a.A.Shape[0]) }

func (a *Adapter) a() kernel.Dense {
	return kernel.Dense{Data: a.A.Data, Rows: a.rank(), Cols: int(a.A.Shape[1])}
}

func (a *Adapter) b() kernel.Dense {
	return kernel.Dense{Data: a.B.Data, Rows: int(a.B.Shape[0]), Cols: a.rank()}
}

// product returns Scale·(dropout(x)·Aᵀ)·Bᵀ for the n rows of x. Matrices in memory cannot
// fail to decode.
func (a *Adapter) product(s *arena, x []float32, n int, d dropout) kernel.LowRank {
	u := s.take(n * a.rank())
	defer s.release(s.mark())
	_ = kernel.MulT(u, d.drop(s, x, a), n, a.a(), false)
	kernel.Scale(u, a.Scale)
	return kernel.LowRank{U: u, V: a.b()}
}

// grads adds to the gradients of A and B what follows from the gradient dy of the sum
// that product is part of. It returns the gradient with respect to dropout(x).
func (a *Adapter) grads(s *arena, dy, x []float32, n int, d dropout) kernel.LowRank {
	r, in, out := a.rank(), a.a().Cols, a.b().Rows
	u := s.take(n * r)
	defer s.release(s.mark())
	x = d.drop(s, x, a)
	_ = kernel.MulT(u, x, n, a.a(), false)
	kernel.Scale(u, a.Scale)
	kernel.AddOuter(a.B.Grad, dy, u, n, out, r)
	t := u // which is not needed any more
	_ = kernel.Mul(t, dy, n, a.b(), false)
	kernel.Scale(t, a.Scale)
	kernel.AddOuter(a.A.Grad, t, x, n, r, in)
	return kernel.LowRank{U: t, V: a.a(), Plain: true}
}

// scratch returns how many floats a pass through the layer takes for its adapter, for n
// tokens.
func (a *Adapter) scratch(n int, back bool) int {
	in, out := lines(n*int(a.A.Shape[1])), lines(n*int(a.B.Shape[0]))
	inner := lines(n * a.rank()) // x·Aᵀ, or then its gradient
	dropped, initial := 0, 0
	if a.Dropout > 0 {
		dropped = in
	}
	if a.Initial != nil {
		initial = inner
	}
	if a.Magnitude == nil {
		return inner + max(dropped, initial)
	}
	floats := inner + initial
	switch {
	case back:
		floats += 2*dropped + out
	case a.Dropout > 0:
		floats = inner + dropped + out
	}
	return max(floats, a.normScratch())
}
