package model

import (
	"fmt"
	"math"

	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/internal/kernel"
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/train/optim"
)

// Weights gives the tensors of a model by their checkpoint names, for as long
// as the caller holds them: those of one block while it is leased, and those
// outside the blocks always.
type Weights interface {
	// Matrix returns a two-dimensional tensor.
	Matrix(name string) (kernel.Matrix, error)

	// Vector returns a one-dimensional tensor.
	Vector(name string) ([]float32, error)
}

// Leased is the Weights of a block.
type Leased interface {
	Weights

	// Experts starts reading those experts of the block. What it returns waits until
	// one of them is there, the matrices of which may be asked for then; what is
	// there already, or lives elsewhere because it is trained, costs nothing.
	Experts(which []int) (wait func(expert int) error)
}

// Trainable is what is being trained. Both maps may be empty.
type Trainable struct {
	// Params holds tensors trained themselves, by name. The model reads them
	// from here and not from its Weights.
	Params map[string]*optim.Param

	// Adapters holds the low-rank adapters of linear layers, and of the token
	// embeddings, by module name. A head that is tied to the embeddings is without
	// theirs, as in PEFT.
	Adapters map[string]*Adapter
}

// Model computes with one model. It is not safe for concurrent use; its
// kernels use all processors.
type Model struct {
	arch  *arch.Model
	train Trainable
	act   kernel.Activation

	// rotate turns queries and keys, and local those of the layers with a
	// sliding window. Models that learn positions have neither.
	rotate, local *rotary
	positions     int

	scr, headScr arena // inside a block, and at the head
	observer     Observer

	logitFloats int // LogitFloats, but in tests
}

// activations are the values of hidden_act.
var activations = map[string]kernel.Activation{
	"silu": kernel.SiLU, "gelu": kernel.GELU, "gelu_new": kernel.GELUTanh, "gelu_pytorch_tanh": kernel.GELUTanh,
}

// New returns the model a with what is trained of it, for sequences of up to
// positions tokens.
func New(a *arch.Model, train Trainable, positions int) *Model {
	m := &Model{arch: a, train: train, act: activations[a.HiddenAct], positions: positions, logitFloats: LogitFloats}
	if _, learned := a.Find(arch.Position, "weight", -1); learned {
		return m
	}
	m.rotate = newRotary(a, positions, a.Angles)
	m.local = m.rotate
	if a.LocalTheta != 0 {
		m.local = newRotary(a, positions, a.LocalAngles)
	}
	return m
}

// Use puts what else is trained of the model in the place of what it has. Blocks that are
// bound keep what they are bound to.
func (m *Model) Use(train Trainable) { m.train = train }

// Hidden returns the width of the hidden state.
func (m *Model) Hidden() int { return int(m.arch.HiddenSize) }

// Vocab returns the number of logits.
func (m *Model) Vocab() int { return int(m.arch.VocabSize) }

// Positions returns the length of the longest sequence.
func (m *Model) Positions() int { return m.positions }

// embedScale is what embeddings are multiplied by.
func (m *Model) embedScale() float32 {
	if m.arch.ScaleEmbeddings {
		return float32(math.Sqrt(float64(m.arch.HiddenSize)))
	}
	return 1
}

// binding resolves tensors by role: to the trained parameter if there is one,
// else to the weights.
type binding struct {
	m *Model
	w Weights
}

func (b binding) find(role arch.Role, part string, layer int) (arch.Tensor, error) {
	t, ok := b.m.arch.Find(role, part, layer)
	if !ok {
		return t, fmt.Errorf("%w: the %s family has no tensor for role %d", tensor.ErrUnsupported, b.m.arch.Name, role)
	}
	return t, nil
}

// vector returns a norm's weight or a bias, and where its gradient goes (nil
// if it is frozen).
func (b binding) vector(t arch.Tensor) (data, grad []float32, err error) {
	if p := b.m.train.Params[t.Name]; p != nil {
		return p.Data, p.Grad, nil
	}
	data, err = b.w.Vector(t.Name)
	return data, nil, err
}

// norm is a norm, and where the gradients of its weight and bias go.
type norm struct {
	kernel.Norm
	dw, db []float32
}

func (n *norm) grad(dx, dy, x []float32, rows int) { n.Grad(dx, n.dw, n.db, dy, x, rows) }

// norm returns the norm of a role.
func (b binding) norm(role arch.Role, layer int) (*norm, error) {
	t, err := b.find(role, "weight", layer)
	if err != nil {
		return nil, err
	}
	n := &norm{Norm: kernel.Norm{Eps: b.m.arch.NormEps}}
	if t.PlusOne {
		n.Plus = 1
	}
	if n.W, n.dw, err = b.vector(t); err != nil {
		return nil, err
	}
	if bias, ok := b.m.arch.Find(role, "bias", layer); ok {
		n.B, n.db, err = b.vector(bias)
	}
	return n, err
}

// maybeNorm returns the norm of a role that not every family has, nil if this
// one has none.
func (b binding) maybeNorm(role arch.Role, layer int) (*norm, error) {
	if _, ok := b.m.arch.Find(role, "weight", layer); !ok {
		return nil, nil
	}
	return b.norm(role, layer)
}

// linear returns the linear layer of a role with its bias and adapter.
func (b binding) linear(role arch.Role, layer int) (*linear, error) {
	t, err := b.find(role, "weight", layer)
	if err != nil {
		return nil, err
	}
	l, err := b.linearOf(t)
	if err != nil {
		return nil, err
	}
	if bias, ok := b.m.arch.Find(role, "bias", layer); ok {
		if l.bias, l.dbias, err = b.vector(bias); err != nil {
			return nil, err
		}
	}
	return l, nil
}

// linearOf returns the linear layer with that weight and no bias.
func (b binding) linearOf(t arch.Tensor) (*linear, error) {
	l := &linear{weight: t, out: t.Out(), in: t.In(), transposed: t.Transposed, observer: b.m.observer}
	if t.Role != arch.Embedding { // as a head, too, it is without its adapter
		l.lora = b.m.train.Adapters[t.Module()]
	}
	if p := b.m.train.Params[t.Name]; p != nil {
		l.w, l.dw = kernel.Dense{Data: p.Data, Rows: int(t.Dims[0]), Cols: int(t.Dims[1])}, p.Grad
		return l, nil
	}
	var err error
	l.w, err = b.w.Matrix(t.Name)
	return l, err
}

// head returns the linear layer that makes logits: its own weight, or the
// embeddings' if they are tied.
func (b binding) head() (*linear, error) {
	if _, ok := b.m.arch.Find(arch.Head, "weight", -1); !ok {
		return b.linear(arch.Embedding, -1)
	}
	return b.linear(arch.Head, -1)
}
