package peft

import (
	"bytes"
	"fmt"
	"io"

	"github.com/seed18967229/nibble/internal/kernel"
	"github.com/seed18967229/nibble/tensor"
)

// suffixes of the canonical names.
const (
	suffixA, suffixB       = ".lora_A.weight", ".lora_B.weight"
	embeddingA, embeddingB = ".lora_embedding_A", ".lora_embedding_B"
	suffixMagnitude        = ".lora_magnitude_vector"
)

// namesOf returns what A and B of a module are called.
func namesOf(module string, embedding bool) (a, b string) {
	if embedding {
		return module + embeddingA, module + embeddingB
	}
	return module + suffixA, module + suffixB
}

// computed returns the entry of a tensor in F32 whose elements f makes of another's. Both
// are in memory while it is read: it is for the factors of adapters, which are small.
func computed(src tensor.Source, name string, out tensor.Info, f func(x []float32) []float32) tensor.Entry {
	out.DType = tensor.F32
	return tensor.Entry{Info: out, Open: func() (io.ReaderAt, error) {
		_, x, err := codecs().ReadAll(src, name)
		if err != nil {
			return nil, err
		}
		if x = f(x); int64(len(x)) != out.Shape.Elems() {
			return nil, fmt.Errorf("tensor %q: %d elements were made for shape %v", out.Name, len(x), out.Shape)
		}
		b := make([]byte, 4*len(x))
		kernel.EncodeF32(b, x)
		return bytes.NewReader(b), nil
	}}
}

// constant returns the entry of a scalar.
func constant(name string, v float32) tensor.Entry {
	return tensor.Entry{Info: tensor.Info{Name: name, DType: tensor.F32, Shape: tensor.Shape{}}, Open: func() (io.ReaderAt, error) {
		b := make([]byte, 4)
		kernel.EncodeF32(b, []float32{v})
		return bytes.NewReader(b), nil
	}}
}

// scaled multiplies in place.
func scaled(x []float32, by float64) []float32 {
	if by != 1 {
		for i, v := range x {
			x[i] = float32(float64(v) * by)
		}
	}
	return x
}
