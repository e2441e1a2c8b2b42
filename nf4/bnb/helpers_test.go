package bnb

import (
	"bytes"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/formats/safetensors"
	"github.com/seed18967229/nibble/internal/tensortest"
	"github.com/seed18967229/nibble/nf4"
	"github.com/seed18967229/nibble/nf4/internal/golden"
	"github.com/seed18967229/nibble/pipeline"
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/tensor/floats"
	"github.com/seed18967229/nibble/tensor/scaled"
)

var codecs = tensor.NewCodecs(slices.Concat(floats.Codecs(), nf4.Codecs(), scaled.Codecs())...)

// archive returns a file of nf4/testdata/golden.tar.zst.
func archive(t testing.TB, name string) tensor.Source {
	t.Helper()
	file, ok := golden.Files(t, filepath.Join("..", "testdata"))[name]
	require.True(t, ok, name)
	src, err := safetensors.Parse(bytes.NewReader(file), int64(len(file)))
	require.NoError(t, err)
	return src
}

// open returns a file of testdata.
func open(t testing.TB, path ...string) tensor.Source {
	t.Helper()
	f, err := safetensors.Open(filepath.Join(append([]string{"testdata"}, path...)...))
	require.NoError(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}

// run carries a plan out into a file and opens that.
func run(t testing.TB, p *pipeline.Plan, src tensor.Source, opts ...pipeline.Option) tensor.Source {
	t.Helper()
	path := filepath.Join(t.TempDir(), "out.safetensors")
	sink, err := safetensors.Create(path, false)
	require.NoError(t, err)
	require.NoError(t, pipeline.Run(t.Context(), p, src, sink, opts...))
	f, err := safetensors.Open(path)
	require.NoError(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}

// cast decodes every quantized tensor of a view to d, through pipeline.Cast, and
// drops the others.
func cast(t testing.TB, view tensor.Source, d tensor.DType) tensor.Source {
	t.Helper()
	p := &pipeline.Plan{}
	for info := range view.All() {
		if !info.DType.Opaque() {
			p.Drop = append(p.Drop, pipeline.Drop{Name: info.Name})
			continue
		}
		step, err := pipeline.Cast(codecs, info.Name, tensor.Info{Name: info.Name, DType: d, Shape: info.Shape})
		require.NoError(t, err)
		p.Steps = append(p.Steps, step)
	}
	return run(t, p, view)
}

func names(src tensor.Source) (names []string) {
	for info := range src.All() {
		names = append(names, info.Name)
	}
	slices.Sort(names)
	return names
}

// tensors copies a source's tensors into memory, to be changed.
func tensors(t testing.TB, src tensor.Source) map[string]*tensortest.Tensor {
	t.Helper()
	m := make(map[string]*tensortest.Tensor)
	for info := range src.All() {
		m[info.Name] = &tensortest.Tensor{Info: info, Data: tensortest.Bytes(t, src, info.Name)}
	}
	return m
}

// source puts them back together.
func source(t testing.TB, m map[string]*tensortest.Tensor) tensor.Source {
	t.Helper()
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	var list []tensortest.Tensor
	for _, k := range keys {
		list = append(list, *m[k])
	}
	return tensortest.NewSource(t, nil, list...)
}

// convert stores a float tensor as another dtype.
func convert(t testing.TB, x *tensortest.Tensor, d tensor.DType) {
	t.Helper()
	rows, err := codecs.Open(x.Info, tensor.Memory(x.Data))
	require.NoError(t, err)
	v := make([]float32, x.Info.Shape.Elems())
	require.NoError(t, rows.ReadRows(v, 0))
	enc, err := codecs.Encoder(d)
	require.NoError(t, err)
	_, size := d.Block()
	x.Info.DType = d
	x.Data = make([]byte, int64(len(v))*size)
	enc.Encode(x.Data, v)
}
