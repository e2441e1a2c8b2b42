package factors

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/tensor"
)

// The endings of the names of an adapter's tensors.
const (
	suffixA, suffixB           = ".lora_A.weight", ".lora_B.weight"
	embeddingA, embeddingB     = ".lora_embedding_A", ".lora_embedding_B"
	suffixBias                 = ".lora_B.bias"
	suffixMagnitude            = ".lora_magnitude_vector"
	suffixMagnitudeFromTrainer = suffixMagnitude + ".weight"
)

// A Module is what an adapter has for one module of a model.
type Module struct {
	Name string

	// The product B·A is Out x In. Embedding says that it is the transpose of what is
	// added to the weight, a table of In rows.
	Out, In, Rank int
	Embedding     bool

	// Scale is by what the product is multiplied.
	Scale float64

	// A is [Rank, In] and B [Out, Rank], with the sides of a convolution's kernel folded
	// into In.
	A, B tensor.Info

	// DoRA says that the sum is brought to a norm of its own, so that what is added
	// depends on the weight. Bias says that there is a bias, scaled like the product.
	DoRA, Bias bool
}

// Delta returns the names of the tensors that hold the product.
func (m *Module) Delta() [2]string { return Names(m.Name, m.Embedding) }

// Names returns what A and B of a module are called.
func Names(module string, embedding bool) [2]string {
	if embedding {
		return [2]string{module + embeddingA, module + embeddingB}
	}
	return [2]string{module + suffixA, module + suffixB}
}

// Params returns how many numbers the two matrices have.
func (m *Module) Params() int64 { return int64(m.Rank) * (int64(m.Out) + int64(m.In)) }

// An Adapter is the inventory of one: its modules in the order of their names, and what else
// it holds.
type Adapter struct {
	Source  tensor.Source
	Modules []Module

	// Rest are the tensors of no pair: magnitudes, biases, weights stored whole.
	Rest []tensor.Info
}

// Inventory reads an adapter's headers. scale gives by what the product of a module of
// that rank is multiplied.
func Inventory(src tensor.Source, scale func(module string, rank int) (float64, error)) (*Adapter, error) {
	a := &Adapter{Source: src}
	for info := range src.All() {
		module, half := cut(info.Name)
		switch half {
		case "":
			a.Rest = append(a.Rest, info)
			continue
		case suffixB, embeddingB:
			if !tensor.Has(src, module+other(half)) {
				return nil, lonely(info.Name, module+other(half))
			}
			continue
		}
		b, err := src.Info(module + other(half))
		if err != nil {
			return nil, lonely(info.Name, module+other(half))
		}
		m, err := newModule(module, info, b)
		if err != nil {
			return nil, err
		}
		m.Embedding = half == embeddingA
		m.DoRA = tensor.Has(src, module+suffixMagnitude) || tensor.Has(src, module+suffixMagnitudeFromTrainer)
		m.Bias = tensor.Has(src, module+suffixBias)
		if m.Scale, err = scale(module, m.Rank); err != nil {
			return nil, fmt.Errorf("adapter tensor %q: %w", info.Name, err)
		}
		if math.IsNaN(m.Scale) || math.IsInf(m.Scale, 0) {
			return nil, fmt.Errorf("adapter tensor %q: %w: its scale is %v", info.Name, tensor.ErrMalformed, m.Scale)
		}
		a.Modules = append(a.Modules, m)
	}
	slices.SortStableFunc(a.Modules, func(x, y Module) int { return ByNumbers(x.Name, y.Name) })
	if len(a.Modules) == 0 {
		return nil, hint.Add(fmt.Errorf("%w: the adapter has no low-rank matrices", tensor.ErrMalformed), "an adapter has tensors that end in lora_A.weight and lora_B.weight")
	}
	return a, nil
}

// ByNumbers compares names part by part, numbers by their value: layer 2 is before layer 10.
func ByNumbers(a, b string) int {
	x, y := strings.Split(a, "."), strings.Split(b, ".")
	for i := range min(len(x), len(y)) {
		n, errN := strconv.ParseUint(x[i], 10, 64)
		m, errM := strconv.ParseUint(y[i], 10, 64)
		c := strings.Compare(x[i], y[i])
		if errN == nil && errM == nil {
			c = cmp.Compare(n, m)
		}
		if c != 0 {
			return c
		}
	}
	return cmp.Compare(len(x), len(y))
}

func lonely(name, without string) error {
	return fmt.Errorf("adapter tensor %q: %w: there is no %s beside it", name, tensor.ErrMalformed, without)
}

// cut splits a tensor's name into its module and which half of a pair it is, "" for none.
func cut(name string) (module, half string) {
	for _, half := range []string{suffixA, suffixB, embeddingA, embeddingB} {
		if module, ok := strings.CutSuffix(name, half); ok {
			return module, half
		}
	}
	return "", ""
}

func other(half string) string {
	return map[string]string{suffixA: suffixB, suffixB: suffixA, embeddingA: embeddingB, embeddingB: embeddingA}[half]
}

func newModule(name string, a, b tensor.Info) (Module, error) {
	m := Module{Name: name, A: a, B: b}
	// Of a convolution A has the sides of the kernel, and B sides of 1.
	fits := len(a.Shape) >= 2 && len(b.Shape) >= 2 && len(a.Shape) <= 5 && a.Shape[0] == b.Shape[1] && a.Shape.Elems() > 0 && b.Shape.Elems() > 0
	for i := 2; i < len(b.Shape); i++ {
		fits = fits && b.Shape[i] == 1
	}
	if !fits {
		return m, fmt.Errorf("adapter tensors %q and %q: %w: shapes %v and %v, want [rank, in] and [out, rank]", a.Name, b.Name, tensor.ErrMalformed, a.Shape, b.Shape)
	}
	m.Rank, m.Out, m.In = int(a.Shape[0]), int(b.Shape[0]), int(a.Shape.Elems()/a.Shape[0])
	return m, nil
}

// A Pair is the matrices of a module in memory.
type Pair struct {
	Out, In, Rank int
	B             []float32 // [Out, Rank]
	A             []float32 // [Rank, In]
	Scale         float64
}

// Factors returns the low-rank factors: scale·b·a.
func (p *Pair) Factors() (b, a []float32, rank int, scale float32) {
	return p.B, p.A, p.Rank, float32(p.Scale)
}

// Read reads a module's matrices. A value that is not finite is an error.
func (a *Adapter) Read(codecs tensor.Codecs, m *Module) (*Pair, error) {
	p := &Pair{Out: m.Out, In: m.In, Rank: m.Rank, Scale: m.Scale}
	for _, x := range []struct {
		info tensor.Info
		to   *[]float32
	}{{m.A, &p.A}, {m.B, &p.B}} {
		values, err := a.ReadWhole(codecs, x.info)
		if err != nil {
			return nil, err
		}
		*x.to = values
	}
	return p, nil
}

// ReadWhole reads a tensor of the adapter. A value that is not finite is an error.
func (a *Adapter) ReadWhole(codecs tensor.Codecs, info tensor.Info) ([]float32, error) {
	_, values, err := codecs.ReadAll(a.Source, info.Name)
	if err != nil {
		return nil, err
	}
	for i, v := range values {
		if v-v != 0 { // NaN or Inf
			return nil, hint.Add(fmt.Errorf("adapter tensor %q: %w: element %d is %v", info.Name, tensor.ErrMalformed, i, v),
				"nibble verify lists every tensor with NaN or Inf")
		}
	}
	return values, nil
}
