package tensor_test

import (
	"bytes"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/internal/tensortest"
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/tensor/floats"
)

var codecs = tensor.NewCodecs(floats.Codecs()...)

func TestDTypeNames(t *testing.T) {
	for _, name := range []string{"BOOL", "F4", "F8_E4M3", "BF16", "C64", "Q8_0", "IQ4_NL", "NF4"} {
		d, err := tensor.ParseDType(name)
		require.NoError(t, err)
		require.Equal(t, name, d.String())
	}
	for _, name := range []string{"", "f32", "invalid", "Q4_2"} {
		_, err := tensor.ParseDType(name)
		require.ErrorIs(t, err, tensor.ErrUnsupported, "%q", name)
	}
	require.Equal(t, "DType(250)", tensor.DType(250).String())
}

func TestInfoSize(t *testing.T) {
	for _, c := range []struct {
		d     tensor.DType
		shape tensor.Shape
		size  int64
		rows  int64
	}{
		{tensor.F32, nil, 4, 1},
		{tensor.F32, tensor.Shape{3}, 12, 1},
		{tensor.BF16, tensor.Shape{2, 3}, 12, 2},
		{tensor.F32, tensor.Shape{2, 0}, 0, 2},
		{tensor.F32, tensor.Shape{0, 5}, 0, 0},
		{tensor.F4, tensor.Shape{2, 3}, 3, 2},
		{tensor.F6_E2M3, tensor.Shape{2, 2}, 3, 2},
		{tensor.Q8_0, tensor.Shape{3, 64}, 204, 3},
		{tensor.Q4_K, tensor.Shape{2, 3, 256}, 864, 6},
	} {
		info := tensor.Info{Name: "x", DType: c.d, Shape: c.shape}
		require.NoError(t, info.Validate())
		require.Equal(t, c.size, info.Size(), "%v %v", c.d, c.shape)
		require.Equal(t, c.rows, info.Shape.Rows())
	}
	opaque := tensor.NewOpaque("x", tensor.NF4, tensor.Shape{3, 5}, 77)
	require.NoError(t, opaque.Validate())
	require.Equal(t, int64(77), opaque.Size())
	require.Equal(t, int64(0), opaque.RowSize())
	late := tensor.NewLate("x")
	require.True(t, late.Late())
	require.NoError(t, late.Validate())
	require.Equal(t, int64(tensor.MaxLate), late.Size())
}

func TestInfoValidate(t *testing.T) {
	for _, c := range []struct {
		d     tensor.DType
		shape tensor.Shape
		is    error
	}{
		{tensor.Invalid, tensor.Shape{1}, tensor.ErrUnsupported},
		{tensor.DType(250), tensor.Shape{1}, tensor.ErrUnsupported},
		{tensor.F32, tensor.Shape{-1, 2}, tensor.ErrMalformed},
		{tensor.U8, tensor.Shape{math.MaxInt64, 2}, tensor.ErrMalformed},
		{tensor.U8, tensor.Shape{1 << 32, 1 << 32}, tensor.ErrMalformed},
		{tensor.F32, tensor.Shape{1 << 61}, tensor.ErrMalformed},
		{tensor.Q8_0, tensor.Shape{2, 33}, tensor.ErrMalformed},
		{tensor.Q8_0, tensor.Shape{32, 16}, tensor.ErrMalformed},
		{tensor.F4, tensor.Shape{3}, tensor.ErrMalformed},
	} {
		err := tensor.Info{Name: "the name", DType: c.d, Shape: c.shape}.Validate()
		require.ErrorIs(t, err, c.is, "%v %v", c.d, c.shape)
		require.ErrorContains(t, err, "the name")
	}
	require.ErrorIs(t, tensor.NewOpaque("x", tensor.NF4, tensor.Shape{2}, -1).Validate(), tensor.ErrMalformed)
}

func TestTable(t *testing.T) {
	src := tensortest.NewSource(t, tensor.Meta{{Key: "a", Value: "b"}, {Key: "n", Value: uint32(3)}},
		tensortest.Normal("w", tensor.Shape{3, 4}, 1, 1),
		tensortest.Float32("empty", tensor.Shape{0, 4}, nil),
		tensortest.Float32("scalar", nil, []float32{2}))
	tensortest.TestSource(t, src)
	require.True(t, tensor.Has(src, "w"))
	require.False(t, tensor.Has(src, "v"))
	s, ok := tensor.Lookup[string](src.Meta(), "a")
	require.True(t, ok)
	require.Equal(t, "b", s)
	_, ok = tensor.Lookup[string](src.Meta(), "n")
	require.False(t, ok, "another type")
	_, ok = tensor.Lookup[string](src.Meta(), "none")
	require.False(t, ok)

	_, err := tensor.NewTable(nil, []tensor.Entry{
		{Info: tensor.Info{Name: "x", DType: tensor.U8, Shape: tensor.Shape{1}}},
		{Info: tensor.Info{Name: "x", DType: tensor.U8, Shape: tensor.Shape{1}}},
	})
	require.ErrorIs(t, err, tensor.ErrMalformed)
	_, err = tensor.NewTable(nil, []tensor.Entry{{Info: tensor.Info{Name: "x"}}})
	require.ErrorIs(t, err, tensor.ErrUnsupported)
}

func TestComputedSource(t *testing.T) {
	w := tensortest.Normal("w", tensor.Shape{37, 5}, 1, 2)
	src := tensortest.NewSource(t, nil, w)
	_, rows, err := codecs.OpenFrom(src, "w")
	require.NoError(t, err)
	enc, err := codecs.Encoder(tensor.F64)
	require.NoError(t, err)
	double := func(w []float32, row int64) error {
		for i := range w {
			w[i] = 2*w[i] + float32(row)
		}
		return nil
	}
	info, err := src.Info("w")
	require.NoError(t, err)
	out := info
	out.DType = tensor.F64
	view, err := tensor.NewTable(nil, []tensor.Entry{
		tensor.Compute(out, rows, nil, enc),
		tensor.Forward(src, info, "other name"),
	})
	require.NoError(t, err)
	tensortest.TestSource(t, view)
	require.Equal(t, w.Data, tensortest.Bytes(t, view, "other name"))
	_, got, err := codecs.ReadAll(view, "w")
	require.NoError(t, err)
	require.Equal(t, tensortest.Floats(t, src, "w"), got)

	changed, err := tensor.NewTable(nil, []tensor.Entry{tensor.Compute(out, rows, double, enc)})
	require.NoError(t, err)
	_, one, err := codecs.OpenFrom(changed, "w")
	require.NoError(t, err)
	row := make([]float32, 5)
	require.NoError(t, one.ReadRows(row, 36))
	for i, v := range row {
		require.Equal(t, 2*got[36*5+i]+36, v)
	}

	fails := func(w []float32, row int64) error { return errors.New("at row 3") }
	failing, err := tensor.NewTable(nil, []tensor.Entry{tensor.Compute(out, rows, fails, enc)})
	require.NoError(t, err)
	_, _, err = codecs.ReadAll(failing, "w")
	require.ErrorContains(t, err, `tensor "w": at row 3`)
}

func TestBytes(t *testing.T) {
	data := []byte("0123456789")
	for _, b := range []tensor.Bytes{tensor.Memory(data), tensor.ReaderBytes{R: bytes.NewReader(data)}} {
		got, err := b.Slice(nil, 3, 4)
		require.NoError(t, err)
		require.Equal(t, "3456", string(got))
		got, err = b.Slice(make([]byte, 0, 100), 0, 10)
		require.NoError(t, err)
		require.Equal(t, data, got)
		_, err = b.Slice(nil, 7, 4)
		require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	}
	_, err := tensor.Memory(data).Slice(nil, -1, 2)
	require.Error(t, err)
	_, err = tensor.Memory(data).Slice(nil, math.MaxInt64, math.MaxInt64)
	require.Error(t, err)
}

func TestCodecs(t *testing.T) {
	require.Panics(t, func() { tensor.NewCodecs(append(floats.Codecs(), floats.Codecs()[0])...) })
	src := tensortest.NewSource(t, nil, tensortest.Tensor{Info: tensor.Info{Name: "i", DType: tensor.C64, Shape: tensor.Shape{1}}, Data: make([]byte, 8)})
	_, _, err := codecs.OpenFrom(src, "i")
	require.ErrorIs(t, err, tensor.ErrUnsupported)
	require.ErrorContains(t, err, `tensor "i"`)
	_, err = codecs.Encoder(tensor.NF4)
	require.ErrorIs(t, err, tensor.ErrUnsupported)
	_, _, err = codecs.OpenFrom(src, "j")
	require.ErrorIs(t, err, tensor.ErrNotFound)
}

func TestConcat(t *testing.T) {
	parts := []tensor.Part{}
	for _, s := range []string{"abc", "", "defgh", "i"} {
		parts = append(parts, tensor.Part{Size: int64(len(s)), Open: func() (io.ReaderAt, error) { return strings.NewReader(s), nil }})
	}
	r, err := tensor.Concat(parts...)()
	require.NoError(t, err)
	for from := range 10 {
		for n := range 12 {
			p := make([]byte, n)
			got, err := r.ReadAt(p, int64(from))
			want := "abcdefghi"[from:min(9, from+n)]
			require.Equal(t, want, string(p[:got]))
			if got < n {
				require.Equal(t, io.EOF, err)
			} else if n > 0 {
				require.NoError(t, err)
			}
		}
	}
	_, err = r.ReadAt(make([]byte, 1), -1)
	require.Error(t, err)

	parts[2].Size = 6 // one more than there is
	r, err = tensor.Concat(parts...)()
	require.NoError(t, err)
	_, err = r.ReadAt(make([]byte, 10), 0)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)

	parts[0].Open = func() (io.ReaderAt, error) { return nil, errors.New("gone") }
	_, err = tensor.Concat(parts...)()
	require.ErrorContains(t, err, "gone")
}

func TestExtents(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	require.NoError(t, err)
	defer f.Close()
	_, err = f.WriteString("0123456789")
	require.NoError(t, err)
	part := func(r io.ReaderAt, size int64) tensor.Part {
		return tensor.Part{Size: size, Open: func() (io.ReaderAt, error) { return r, nil }}
	}
	section := io.NewSectionReader(io.NewSectionReader(f, 2, 6), 1, 4) // "3456"
	both, err := tensor.Concat(part(section, 4), part(io.NewSectionReader(f, 0, 3), 3), part(f, 0))()
	require.NoError(t, err)
	for off := range int64(8) {
		for n := int64(1); n < 8-off; n++ {
			list, ok := tensor.Extents(both, off, n)
			require.True(t, ok)
			var got []byte
			for _, e := range list {
				b := make([]byte, e.Size)
				_, err := e.File.ReadAt(b, e.Off)
				require.NoError(t, err)
				got = append(got, b...)
			}
			want := make([]byte, n)
			_, err := both.ReadAt(want, off)
			require.NoError(t, err)
			require.Equal(t, string(want), string(got))
		}
	}
	_, ok := tensor.Extents(section, 2, 3)
	require.False(t, ok, "more than there is")
	_, ok = tensor.Extents(both, 5, 4)
	require.False(t, ok, "more than there is")
	_, ok = tensor.Extents(strings.NewReader("abc"), 0, 3)
	require.False(t, ok, "not in a file")
	mixed, err := tensor.Concat(part(section, 4), part(strings.NewReader("abc"), 3))()
	require.NoError(t, err)
	_, ok = tensor.Extents(mixed, 0, 7)
	require.False(t, ok)
	_, ok = tensor.Extents(mixed, 1, 3)
	require.True(t, ok, "the first part alone")

	// Pieces of what is stored in part, and of what there is not.
	for off := range int64(9) {
		for n := int64(0); n < 10; n++ {
			var got []byte
			var failed error
			for _, x := range tensor.Pieces(io.NewSectionReader(mixed, 0, 7), off, n) {
				r := x.R
				if x.File != nil {
					r = x.File
				}
				b := make([]byte, x.Size)
				k, err := r.ReadAt(b, x.Off)
				if int64(k) < x.Size {
					failed = err
				}
				got = append(got, b...)
			}
			require.Len(t, got, int(n))
			if off+n > 7 && n > 0 {
				require.Error(t, failed)
				continue
			}
			require.NoError(t, failed)
			require.Equal(t, "3456abc"[min(off, 7):min(off+n, 7)], string(got))
		}
	}
}

// counted is Rows of the number of each element.
type counted struct{ cols int64 }

// ReadRows implements tensor.Rows.
func (r counted) ReadRows(dst []float32, row int64) error {
	for i := range dst {
		dst[i] = float32(row*r.cols + int64(i))
	}
	return nil
}

// noting is an Encoder that says when it is asked to store.
type noting struct {
	tensor.Encoder
	stored *bool
}

// Encode implements tensor.Encoder.
func (n noting) Encode(dst []byte, src []float32) {
	*n.stored = true
	n.Encoder.Encode(dst, src)
}

// TestComputedF32IsNotStored reads what is computed as it is where that is the same as
// its bytes.
func TestComputedF32IsNotStored(t *testing.T) {
	want := []float32{-1, 11, 12, 13, 14, 15, 16, 17, 18, 19}
	for _, d := range []tensor.DType{tensor.F32, tensor.BF16} {
		enc, err := codecs.Encoder(d)
		require.NoError(t, err)
		info := tensor.Info{Name: "x", DType: d, Shape: tensor.Shape{6, 5}}
		stored := false
		e := tensor.Compute(info, counted{5}, func(w []float32, _ int64) error { w[0] = -1; return nil }, noting{enc, &stored})
		table, err := tensor.NewTable(nil, []tensor.Entry{e})
		require.NoError(t, err)
		part := tensor.Info{Name: "part", DType: d, Shape: tensor.Shape{2, 5}}
		_, size := d.Block()
		derived, err := tensor.NewTable(nil, []tensor.Entry{tensor.Forward(table, info, "whole"), {Info: part, Open: func() (io.ReaderAt, error) {
			r, err := table.Raw("x")
			return io.NewSectionReader(r, 2*5*size, 2*5*size), err
		}}})
		require.NoError(t, err)
		got := make([]float32, 10)
		_, rows, err := codecs.OpenFrom(derived, "whole")
		require.NoError(t, err)
		require.NoError(t, rows.ReadRows(got, 2))
		require.Equal(t, want, got)
		require.Equal(t, d != tensor.F32, stored, "%v", d)

		_, rows, err = codecs.OpenFrom(derived, "part")
		require.NoError(t, err)
		require.NoError(t, rows.ReadRows(got, 0))
		require.Equal(t, want, got)
		require.True(t, stored)
	}
}
