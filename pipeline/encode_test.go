package pipeline

import (
	"context"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/tensortest"
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/tensor/floats"
)

// marking is an encoder of one byte a row: the sum of the row times importance.
type marking struct{ overflow float32 }

func (marking) DType() tensor.DType { return tensor.Q8_0 }

func (marking) Open(info tensor.Info, data tensor.Bytes) (tensor.Rows, error) {
	return tensor.BlockRows(info, data, func(dst []float32, src []byte) {
		for i := range dst {
			dst[i] = 1
			if src[i/32*34] == 255 {
				dst[i] = float32(math.Inf(1))
			}
		}
	}), nil
}

func (m marking) Encode(dst []byte, src []float32) { m.EncodeWeighted(dst, src, nil) }

func (m marking) EncodeWeighted(dst []byte, src, importance []float32) {
	clear(dst)
	for i, v := range src {
		b := &dst[i/32*34]
		switch {
		case v > m.overflow:
			*b = 255
		case *b == 255:
		case importance == nil:
			*b += byte(v)
		default:
			*b += byte(v * importance[i%len(importance)])
		}
	}
}

func encodeAll(t *testing.T, src tensor.Source, in string, e Encoding) ([]byte, error) {
	t.Helper()
	c := tensor.NewCodecs(append(floats.Codecs(), marking{70000})...)
	i := info(t, src, in)
	i.Name, i.DType = "out", tensor.Q8_0
	step, err := Encode(c, in, i, e)
	if err != nil {
		return nil, err
	}
	require.Equal(t, "q8_0", step.Action)
	dst := &memorySink{}
	plan := &Plan{Steps: []Step{step}}
	for other := range src.All() {
		plan.Drop = append(plan.Drop, Drop{other.Name, "not looked at"})
	}
	if err := Run(context.Background(), plan, src, dst); err != nil {
		require.Equal(t, "abort", dst.ended)
		return nil, err
	}
	return dst.bodies[0], nil
}

func ones(n int) []float32 {
	w := make([]float32, n)
	for i := range w {
		w[i] = 1
	}
	return w
}

// Each matrix of a tensor has its own row of importance, however panels fall.
func TestEncodeWithImportance(t *testing.T) {
	const mats, rows, cols = 7, 1500, 64
	src := tensortest.NewSource(t, nil, tensortest.Float32("a", tensor.Shape{mats, rows, cols}, ones(mats*rows*cols)))
	require.NotZero(t, PanelRows(cols)%rows, "a panel must reach over matrices")
	importance := make([]float32, mats*cols)
	for m := range mats {
		for c := range cols {
			importance[m*cols+c] = float32(m%3 + c/32)
		}
	}
	got, err := encodeAll(t, src, "a", Encoding{Importance: importance})
	require.NoError(t, err)
	for m := range mats {
		for r := range rows {
			for block := range cols / 32 {
				require.Equal(t, byte(32*(m%3+block)), got[((m*rows+r)*2+block)*34])
			}
		}
	}
	got, err = encodeAll(t, src, "a", Encoding{})
	require.NoError(t, err)
	require.Equal(t, byte(32), got[0])

	empty := tensortest.NewSource(t, nil, tensortest.Float32("a", tensor.Shape{0, 64}, nil))
	got, err = encodeAll(t, empty, "a", Encoding{Importance: importance[:64]})
	require.NoError(t, err)
	require.Empty(t, got)

	_, err = encodeAll(t, src, "a", Encoding{Importance: importance[1:]})
	require.ErrorContains(t, err, `"a"`)
}

func TestEncodeFaults(t *testing.T) {
	const cols = 64
	big := PanelRows(cols) + 3
	with := func(at int64, v float32) tensor.Source {
		w := ones(int(big * cols))
		w[at] = v
		return tensortest.NewSource(t, nil, tensortest.Float32("a", tensor.Shape{big, cols}, w))
	}
	nan := float32(math.NaN())
	at := PanelRows(cols)*cols + 70

	_, err := encodeAll(t, with(at, nan), "a", Encoding{})
	var bad *tensor.NonFiniteError
	require.ErrorAs(t, err, &bad)
	require.Equal(t, at, bad.Index)
	require.ErrorContains(t, err, `tensor "out"`)

	zero := &NonFinite{AsZero: true}
	got, err := encodeAll(t, with(at, nan), "a", Encoding{NonFinite: zero})
	require.NoError(t, err)
	require.Equal(t, byte(31), got[at/32*34])
	require.Len(t, zero.Notes(), 1)

	// Large, and the type holds it; too large.
	got, err = encodeAll(t, with(at, 65536), "a", Encoding{})
	require.NoError(t, err)
	require.Equal(t, byte(31), got[at/32*34])
	_, err = encodeAll(t, with(at, 80000), "a", Encoding{})
	require.ErrorIs(t, err, tensor.ErrUnsupported)
	require.ErrorContains(t, err, "element 262214 is 80000")
	require.NotEmpty(t, hint.Of(err))

	_, err = Encode(codecs, "a", tensor.Info{Name: "x", DType: tensor.Q1_0, Shape: tensor.Shape{1, 128}}, Encoding{})
	require.ErrorIs(t, err, tensor.ErrUnsupported)
}
