package bnb

import (
	"compress/gzip"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/internal/tensortest"
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/tensor/scaled"
)

// A checkpoint that transformers saved: the values are bitsandbytes' own.
func TestViewInt8(t *testing.T) {
	src := open(t, "int8", "model.safetensors")
	view, err := View(src, tensor.BF16)
	require.NoError(t, err)
	tensortest.TestSource(t, view)
	require.Equal(t, names(open(t, "original", "model.safetensors")), names(view))

	want := open(t, "int8", "dequant.safetensors")
	got := cast(t, view, tensor.F32)
	require.Equal(t, names(want), names(got))
	for _, n := range names(want) {
		require.Equal(t, tensortest.Bytes(t, want, n), tensortest.Bytes(t, got, n), n)
		h, err := scaled.Describe(view, n)
		require.NoError(t, err)
		require.Equal(t, tensor.I8, h.Element)
		require.Equal(t, tensor.BF16, h.Source)
		info, err := view.Info(n)
		require.NoError(t, err)
		require.Equal(t, tensor.INT8, info.DType)
		require.Equal(t, "a scale for each row", h.Grid(info.Shape))
	}
	require.Equal(t, make([]byte, 4*32), tensortest.Bytes(t, got, query)[3*4*32:4*4*32], "the script cleared row 3")
	for info := range view.All() { // what is not quantized is passed on
		if !tensor.Has(want, info.Name) {
			require.Equal(t, tensortest.Bytes(t, src, info.Name), tensortest.Bytes(t, view, info.Name))
		}
	}

	view, err = View(src, tensor.Invalid)
	require.NoError(t, err)
	h, err := scaled.Describe(view, query)
	require.NoError(t, err)
	require.Equal(t, tensor.F16, h.Source, "where nothing is known")
}

// A part of a published checkpoint, against what bitsandbytes' CUDA kernels make
// of it.
func TestViewInt8Published(t *testing.T) {
	f, err := os.Open(filepath.Join("..", "testdata", "anamnesis", "llama_1b_int8.bin.gz"))
	require.NoError(t, err)
	defer f.Close()
	z, err := gzip.NewReader(f)
	require.NoError(t, err)
	file, err := io.ReadAll(z)
	require.NoError(t, err)
	word := func(i int) int64 { return int64(binary.LittleEndian.Uint32(file[4*i:])) }
	rows, cols, codes, scb := word(1), word(2), word(3), word(4)
	require.Len(t, file, int(24+codes+scb))
	src := tensortest.NewSource(t, nil,
		tensortest.Tensor{Info: tensor.Info{Name: "m.weight", DType: tensor.I8, Shape: tensor.Shape{rows, cols}}, Data: file[24 : 24+codes]},
		tensortest.Tensor{Info: tensor.Info{Name: "m.SCB", DType: tensor.F32, Shape: tensor.Shape{rows}}, Data: file[24+codes:]})
	view, err := View(src, tensor.BF16)
	require.NoError(t, err)
	sum := sha256.Sum256(tensortest.Bytes(t, cast(t, view, tensor.BF16), "m.weight"))
	require.Equal(t, "11b5ed64e6ac26fc360710d70891c87f8c161b319c4f5b0e310f99908ec11bd0", hex.EncodeToString(sum[:]))
}

func TestViewInt8Variants(t *testing.T) {
	layer := strings.TrimSuffix(query, ".weight")
	base := func() map[string]*tensortest.Tensor { return tensors(t, open(t, "int8", "model.safetensors")) }
	read := func(m map[string]*tensortest.Tensor) []float32 {
		view, err := View(source(t, m), tensor.F16)
		require.NoError(t, err)
		tensortest.TestSource(t, view)
		_, v, err := codecs.ReadAll(view, query)
		require.NoError(t, err)
		return v
	}
	want := read(base())

	m := base()
	delete(m, layer+formatSuffix)
	require.Equal(t, want, read(m), "weight_format may be missing")

	m = base()
	m[layer+scbSuffix].Info.Shape = tensor.Shape{1, 32}
	require.Equal(t, want, read(m), "a row of scales")

	for _, d := range []tensor.DType{tensor.BF16, tensor.F16} {
		m, exact := base(), base()
		convert(t, m[layer+scbSuffix], d)
		*exact[layer+scbSuffix] = *m[layer+scbSuffix]
		convert(t, exact[layer+scbSuffix], tensor.F32)
		require.Equal(t, read(exact), read(m), "rounded scales are used as they are stored")
	}

	m = base() // a NaN stays where it is
	copy(m[layer+scbSuffix].Data[4:], []byte{0, 0, 0xc0, 0x7f})
	for i, v := range read(m) {
		require.Equal(t, i/32 == 1, math.IsNaN(float64(v)), "element %d", i)
	}
}

func TestViewInt8Errors(t *testing.T) {
	layer := strings.TrimSuffix(query, ".weight")
	set := func(name string, info tensor.Info, data ...byte) func(map[string]*tensortest.Tensor) {
		return func(m map[string]*tensortest.Tensor) {
			info.Name = name
			if data == nil {
				data = make([]byte, info.Size())
			}
			m[name] = &tensortest.Tensor{Info: info, Data: data}
		}
	}
	info := func(d tensor.DType, shape ...int64) tensor.Info { return tensor.Info{DType: d, Shape: shape} }
	remove := func(name string) func(map[string]*tensortest.Tensor) {
		return func(m map[string]*tensortest.Tensor) { delete(m, name) }
	}
	for name, c := range map[string]struct {
		change func(map[string]*tensortest.Tensor)
		want   error
		text   string
	}{
		"no weight":      {remove(query), tensor.ErrMalformed, `it belongs to a weight "` + query},
		"no SCB":         {remove(layer + scbSuffix), tensor.ErrMalformed, `"` + layer + scbSuffix + `", which belongs to it, is not there`},
		"nothing beside": {func(m map[string]*tensortest.Tensor) { remove(layer + scbSuffix)(m); remove(layer + formatSuffix)(m) }, tensor.ErrMalformed, layer + scbSuffix},
		"weight dtype":   {set(query, info(tensor.U8, 32, 32)), tensor.ErrMalformed, "U8 of [32, 32]"},
		"weight shape":   {set(query, info(tensor.I8, 4, 8, 32)), tensor.ErrMalformed, "want I8 of [out, in]"},
		"short SCB":      {set(layer+scbSuffix, info(tensor.F32, 31)), tensor.ErrMalformed, "has 31 elements, want 32"},
		"SCB dtype":      {set(layer+scbSuffix, info(tensor.I32, 32)), tensor.ErrMalformed, "is I32"},
		"col32":          {set(layer+formatSuffix, info(tensor.U8), 1), tensor.ErrUnsupported, "col32"},
		"turing":         {set(layer+formatSuffix, info(tensor.U8), 2), tensor.ErrUnsupported, "col_turing"},
		"ampere":         {set(layer+formatSuffix, info(tensor.U8), 3), tensor.ErrUnsupported, "col_ampere"},
		"format 4":       {set(layer+formatSuffix, info(tensor.U8), 4), tensor.ErrMalformed, "weight format 4"},
		"format dtype":   {set(layer+formatSuffix, info(tensor.I64)), tensor.ErrMalformed, "want one number"},
		"format shape":   {set(layer+formatSuffix, info(tensor.U8, 2)), tensor.ErrMalformed, "want one number"},
		"4 bits too":     {set(query+absmaxSuffix, info(tensor.F32, 16)), tensor.ErrMalformed, "both"},
	} {
		t.Run(name, func(t *testing.T) {
			m := tensors(t, open(t, "int8", "model.safetensors"))
			c.change(m)
			_, err := View(source(t, m), tensor.BF16)
			require.ErrorIs(t, err, c.want)
			require.ErrorContains(t, err, c.text)
			require.ErrorContains(t, err, layer)
			require.NotContains(t, err.Error(), "\n")
		})
	}
}

// A disk that fails is not a broken checkpoint.
func TestViewInt8ReadErrors(t *testing.T) {
	good := open(t, "int8", "model.safetensors")
	for _, suffix := range []string{".weight", scbSuffix, formatSuffix} {
		for _, raw := range []bool{false, true} {
			view, err := View(&failing{good, strings.TrimSuffix(query, ".weight") + suffix, raw}, tensor.BF16)
			if err == nil {
				_, _, err = codecs.ReadAll(view, query)
			}
			require.ErrorIs(t, err, errDisk, suffix)
			require.NotErrorIs(t, err, tensor.ErrMalformed)
			require.ErrorContains(t, err, query)
		}
	}
}
