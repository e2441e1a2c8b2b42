package scaled

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/internal/tensortest"
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/tensor/floats"
)

var codecs = tensor.NewCodecs(append(floats.Codecs(), Codecs()...)...)

// pair returns a source of a random weight of that shape and its scales.
func pair(t testing.TB, h Header, shape tensor.Shape, seed uint64) (src tensor.Source, weight, scale tensor.Info) {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, uint64(shape.Elems())))
	weight = tensor.Info{Name: "w", DType: h.Element, Shape: shape}
	data := make([]byte, shape.Elems())
	for i := range data {
		data[i] = byte(rng.Uint32())
	}
	values := make([]float32, h.Scales(shape))
	for i := range values {
		values[i] = float32(rng.NormFloat64())
	}
	s := tensortest.Float32("s", tensor.Shape{int64(len(values))}, values)
	return tensortest.NewSource(t, nil, tensortest.Tensor{Info: weight, Data: data}, s), weight, s.Info
}

// view makes the two one.
func view(t testing.TB, src tensor.Source, h Header, weight, scale tensor.Info) tensor.Source {
	t.Helper()
	e, err := Entry(src, h, weight, scale)
	require.NoError(t, err)
	v, err := tensor.NewTable(nil, []tensor.Entry{e})
	require.NoError(t, err)
	return v
}

// element decodes a code without a table.
func element(d tensor.DType, c byte) float32 {
	if d == tensor.I8 {
		return float32(int8(c))
	}
	man, bias := 3, 7
	if d == tensor.F8_E5M2 {
		man, bias = 2, 15
	}
	e, m := int(c&0x7f)>>man, int(c)&(1<<man-1)
	v := math.Ldexp(float64(m), 1-bias-man)
	switch {
	case d == tensor.F8_E5M2 && e == 31 && m == 0:
		v = math.Inf(1)
	case d == tensor.F8_E5M2 && e == 31, d == tensor.F8_E4M3 && c&0x7f == 0x7f:
		v = math.NaN()
	case e > 0:
		v = math.Ldexp(float64(m|1<<man), e-bias-man)
	}
	if c >= 0x80 {
		v = -v
	}
	return float32(v)
}

// bits compares numbers with all NaN the same.
func bits(values []float32) []uint32 {
	out := make([]uint32, len(values))
	for i, v := range values {
		if out[i] = math.Float32bits(v); v != v {
			out[i] = 1
		}
	}
	return out
}

// Every element is its code's value times the scale of its block, for grids that
// end in parts of blocks, stacks of matrices, and panels of any rows.
func TestDecode(t *testing.T) {
	all := int64(1) << 40
	for _, c := range []struct {
		shape                      tensor.Shape
		rows, blockRows, blockCols int64
	}{
		{tensor.Shape{7, 9}, 7, 7, 9},                          // one scale
		{tensor.Shape{7, 9}, 7, all, all},                      // one scale, of a block that is larger
		{tensor.Shape{7, 9}, 7, 1, 9},                          // one a row
		{tensor.Shape{256, 256}, 256, 128, 128},                // whole blocks
		{tensor.Shape{129, 257}, 129, 128, 128},                // one more than whole blocks
		{tensor.Shape{127, 1}, 127, 128, 128},                  // less than one
		{tensor.Shape{300, 70}, 300, 128, 32},                  // and not square
		{tensor.Shape{5, 100}, 5, 1, 32},                       // groups
		{tensor.Shape{3, 130, 5}, 130, 128, 2},                 // a stack
		{tensor.Shape{3, 2, 5, 4}, 5, 5, 4},                    // one scale a matrix
		{tensor.Shape{4, 6, 3}, 6, 1, 3},                       // one a row, in a stack
		{tensor.Shape{4, 6, 3}, 24, 24, 3},                     // one for the stack
		{tensor.Shape{11}, 1, 1, 4}, {tensor.Shape{}, 1, 1, 1}, // a vector, a scalar
		{tensor.Shape{2, 3, 1 << 12}, 3, 2, 1000}, // long rows
	} {
		for _, e := range []tensor.DType{tensor.F8_E4M3, tensor.F8_E5M2, tensor.I8} {
			for _, factor := range []float32{1, 7.874015718698502e-3} {
				h := Header{Element: e, Source: tensor.BF16, Rows: c.rows, BlockRows: c.blockRows, BlockCols: c.blockCols, Factor: factor}
				t.Run(fmt.Sprint(c.shape, c.rows, c.blockRows, c.blockCols, e, factor), func(t *testing.T) {
					src, weight, scale := pair(t, h, c.shape, 1)
					v := view(t, src, h, weight, scale)
					tensortest.TestSource(t, v)
					got, err := Describe(v, "w")
					require.NoError(t, err)
					require.Equal(t, h, got)

					codes, scales := tensortest.Bytes(t, src, "w"), tensortest.Floats(t, src, "s")
					cols := c.shape.Cols()
					want := make([]float32, len(codes))
					down, across := (c.rows+c.blockRows-1)/c.blockRows, (cols+c.blockCols-1)/c.blockCols
					for i, code := range codes {
						row, col := int64(i)/cols, int64(i)%cols
						s := scales[(row/c.rows*down+row%c.rows/c.blockRows)*across+col/c.blockCols]
						want[i] = float32(element(e, code)*s) * factor
					}
					info, all, err := codecs.ReadAll(v, "w")
					require.NoError(t, err)
					require.Equal(t, c.shape, info.Shape)
					require.Equal(t, DType(e), info.DType)
					require.Equal(t, bits(want), bits(all))

					stored := tensortest.Bytes(t, v, "w")
					for name, data := range map[string]tensor.Bytes{"memory": tensor.Memory(stored), "file": tensor.ReaderBytes{R: bytes.NewReader(stored)}} {
						rows, err := codecs.Open(info, data)
						require.NoError(t, err)
						rng := rand.New(rand.NewPCG(2, 3))
						for range 20 {
							from := rng.Int64N(c.shape.Rows())
							n := 1 + rng.Int64N(c.shape.Rows()-from)
							part := make([]float32, n*cols)
							require.NoError(t, rows.ReadRows(part, from))
							require.Equal(t, bits(want[from*cols:(from+n)*cols]), bits(part), "%s, %d rows from %d", name, n, from)
						}
						require.NoError(t, rows.ReadRows(nil, 0))
						require.Error(t, rows.ReadRows(make([]float32, cols), c.shape.Rows()))
						require.Error(t, rows.ReadRows(make([]float32, cols), -1))
						if cols > 1 {
							require.Error(t, rows.ReadRows(make([]float32, 1), 0))
						}
					}
				})
			}
		}
	}
}

// A tensor without elements is nothing but a header, whatever scales lie beside it.
// In memory a weight has tiles, and is multiplied as it is: with scales for rows that do not
// begin together with a block of columns too.
func TestTiles(t *testing.T) {
	for _, h := range []Header{
		{Element: tensor.I8, Source: tensor.F16, Rows: 9, BlockRows: 1, BlockCols: 200, Factor: float32(1) / 127},
		{Element: tensor.F8_E4M3, Source: tensor.BF16, Rows: 9, BlockRows: 4, BlockCols: 72, Factor: 1},
		{Element: tensor.F8_E5M2, Source: tensor.BF16, Rows: 3, BlockRows: 2, BlockCols: 128, Factor: 1},
		{Element: tensor.F8_E4M3, Source: tensor.BF16, Rows: 9, BlockRows: 9, BlockCols: 200, Factor: 0.3},
	} {
		shape := tensor.Shape{9, 200}
		src, weight, scale := pair(t, h, shape, 77)
		v := view(t, src, h, weight, scale)
		info, err := v.Info("w")
		require.NoError(t, err)
		rows, err := codecs.Open(info, tensor.Memory(tensortest.Bytes(t, v, "w")))
		require.NoError(t, err)
		tensortest.TestTiles(t, rows, shape)
	}
}

func TestNoElements(t *testing.T) {
	for _, shape := range []tensor.Shape{{0}, {0, 5}, {5, 0}, {2, 0, 3}} {
		h := Header{Element: tensor.I8, Source: tensor.F32, Rows: 1, BlockRows: 1, BlockCols: 1, Factor: 1}
		weight := tensor.Info{Name: "w", DType: tensor.I8, Shape: shape}
		s := tensortest.Float32("s", tensor.Shape{2}, []float32{1, 2})
		src := tensortest.NewSource(t, nil, tensortest.Tensor{Info: weight, Data: []byte{}}, s)
		v := view(t, src, h, weight, s.Info)
		tensortest.TestSource(t, v)
		info, got, err := codecs.ReadAll(v, "w")
		require.NoError(t, err)
		require.Empty(t, got)
		require.Equal(t, int64(headerSize), info.Size())
	}
}

// Scales of any float are read, and a NaN among them makes NaN of its block alone.
func TestScales(t *testing.T) {
	h := Header{Element: tensor.F8_E4M3, Source: tensor.BF16, Rows: 4, BlockRows: 2, BlockCols: 3, Factor: 1}
	shape := tensor.Shape{4, 5}
	src, weight, _ := pair(t, h, shape, 4)
	codes := bytes.ReplaceAll(tensortest.Bytes(t, src, "w"), []byte{0x7f}, []byte{1}) // no NaN of their own
	codes = bytes.ReplaceAll(codes, []byte{0xff}, []byte{1})
	exact := []float32{0.5, 2, float32(math.NaN()), 0.125}
	for d, stored := range map[tensor.DType][]byte{
		tensor.F32:     {0, 0, 0, 0x3f, 0, 0, 0, 0x40, 0, 0, 0xc0, 0x7f, 0, 0, 0, 0x3e},
		tensor.BF16:    {0, 0x3f, 0, 0x40, 0xc0, 0x7f, 0, 0x3e},
		tensor.F16:     {0, 0x38, 0, 0x40, 0, 0x7e, 0, 0x30},
		tensor.F8_E8M0: {126, 128, 255, 124},
	} {
		s := tensortest.Tensor{Info: tensor.Info{Name: "s", DType: d, Shape: tensor.Shape{2, 2}}, Data: stored}
		src := tensortest.NewSource(t, nil, tensortest.Tensor{Info: weight, Data: codes}, s)
		_, got, err := codecs.ReadAll(view(t, src, h, weight, s.Info), "w")
		require.NoError(t, err)
		for i, v := range got {
			s := exact[i/5/2*2+i%5/3]
			require.Equal(t, bits([]float32{element(h.Element, codes[i]) * s}), bits([]float32{v}), "%v, element %d", d, i)
		}
	}
}

func TestEntryErrors(t *testing.T) {
	good := Header{Element: tensor.F8_E4M3, Source: tensor.BF16, Rows: 4, BlockRows: 2, BlockCols: 2, Factor: 1}
	shape := tensor.Shape{4, 5}
	src, weight, scale := pair(t, good, shape, 1)
	for name, c := range map[string]struct {
		change func(h *Header, weight, scale *tensor.Info)
		want   error
		text   string
	}{
		"element":     {func(h *Header, _, _ *tensor.Info) { h.Element = tensor.I8 }, tensor.ErrMalformed, "elements of I8"},
		"no such":     {func(h *Header, w, _ *tensor.Info) { h.Element, w.DType = tensor.F32, tensor.F32 }, tensor.ErrUnsupported, "elements of F32"},
		"source":      {func(h *Header, _, _ *tensor.Info) { h.Source = tensor.F64 }, tensor.ErrUnsupported, "F64"},
		"rows":        {func(h *Header, _, _ *tensor.Info) { h.Rows = 3 }, tensor.ErrMalformed, "no stack of matrices of 3 rows"},
		"no rows":     {func(h *Header, _, _ *tensor.Info) { h.Rows = 0 }, tensor.ErrMalformed, "matrices of 0 rows"},
		"block rows":  {func(h *Header, _, _ *tensor.Info) { h.BlockRows = -1 }, tensor.ErrMalformed, "blocks of -1x2"},
		"block cols":  {func(h *Header, _, _ *tensor.Info) { h.BlockCols = 0 }, tensor.ErrMalformed, "blocks of 2x0"},
		"too few":     {func(_ *Header, _, s *tensor.Info) { s.Shape = tensor.Shape{2, 2} }, tensor.ErrMalformed, `"s" has 4 scales, shape [4, 5] with blocks of 2x2 has 6`},
		"scale dtype": {func(_ *Header, _, s *tensor.Info) { s.DType = tensor.I8 }, tensor.ErrUnsupported, `"s"`},
		"huge": {func(h *Header, w, _ *tensor.Info) { w.Shape = tensor.Shape{1 << 31, 1 << 31}; h.Rows = 1 << 31 },
			tensor.ErrMalformed, "more bytes than 64 bits"},
	} {
		t.Run(name, func(t *testing.T) {
			h, w, s := good, weight, scale
			c.change(&h, &w, &s)
			_, err := Entry(src, h, w, s)
			require.ErrorIs(t, err, c.want)
			require.ErrorContains(t, err, c.text)
		})
	}
}

func TestReadHeaderErrors(t *testing.T) {
	h := Header{Element: tensor.I8, Source: tensor.F16, Rows: 4, BlockRows: 1, BlockCols: 5, Factor: 1}
	shape := tensor.Shape{4, 5}
	src, weight, scale := pair(t, h, shape, 1)
	v := view(t, src, h, weight, scale)
	stored := tensortest.Bytes(t, v, "w")
	info, err := v.Info("w")
	require.NoError(t, err)
	for name, change := range map[string]func(info *tensor.Info, b []byte) []byte{
		"empty":      func(_ *tensor.Info, b []byte) []byte { return nil },
		"short":      func(_ *tensor.Info, b []byte) []byte { return b[:headerSize-1] },
		"truncated":  func(_ *tensor.Info, b []byte) []byte { return b[:len(b)-1] },
		"magic":      func(_ *tensor.Info, b []byte) []byte { b[0]++; return b },
		"element":    func(_ *tensor.Info, b []byte) []byte { b[4] = 3; return b },
		"of another": func(_ *tensor.Info, b []byte) []byte { b[4] = 0; return b },
		"source":     func(_ *tensor.Info, b []byte) []byte { b[8] = 3; return b },
		"count":      func(_ *tensor.Info, b []byte) []byte { b[16]++; return b },
		"rows":       func(_ *tensor.Info, b []byte) []byte { b[24] = 3; return b },
		"negative":   func(_ *tensor.Info, b []byte) []byte { b[31] = 0x80; return b },
		"block":      func(_ *tensor.Info, b []byte) []byte { b[32] = 2; return b },
		"no block":   func(_ *tensor.Info, b []byte) []byte { b[40] = 0; return b },
		"shape":      func(i *tensor.Info, b []byte) []byte { i.Shape = tensor.Shape{5, 4}; return b },
		"size": func(i *tensor.Info, b []byte) []byte {
			*i = tensor.NewOpaque("w", i.DType, i.Shape, i.Size()+1)
			return b
		},
	} {
		i := info
		b := change(&i, bytes.Clone(stored))
		_, err := codecs.Open(i, tensor.Memory(b))
		require.ErrorIs(t, err, tensor.ErrMalformed, name)
		require.ErrorContains(t, err, `"w"`, name)
	}
	_, err = Codecs()[0].Open(info, tensor.Memory(stored))
	require.ErrorIs(t, err, tensor.ErrUnsupported, "the codec of another dtype")
}

func TestGrid(t *testing.T) {
	for want, c := range map[string]struct {
		h     Header
		shape tensor.Shape
	}{
		"a scale":                 {Header{Rows: 4, BlockRows: 4, BlockCols: 5}, tensor.Shape{4, 5}},
		"a scale for each row":    {Header{Rows: 4, BlockRows: 1, BlockCols: 5}, tensor.Shape{4, 5}},
		"a scale for each matrix": {Header{Rows: 4, BlockRows: 4, BlockCols: 5}, tensor.Shape{3, 4, 5}},
		"blocks of 128x128":       {Header{Rows: 4, BlockRows: 128, BlockCols: 128}, tensor.Shape{4, 5}},
		"blocks of 1x2":           {Header{Rows: 4, BlockRows: 1, BlockCols: 2}, tensor.Shape{4, 5}},
		"blocks of 2x5":           {Header{Rows: 4, BlockRows: 2, BlockCols: 5}, tensor.Shape{4, 5}},
	} {
		require.Equal(t, want, c.h.Grid(c.shape))
	}
	require.Equal(t, "FP8 E5M2", Header{Element: tensor.F8_E5M2}.Kind())
	require.Equal(t, "INT8", Header{Element: tensor.I8}.Kind())
}

// Whatever bytes say they are an 8-bit tensor, none panic, and what opens can be
// read.
func FuzzOpen(f *testing.F) {
	h := Header{Element: tensor.F8_E4M3, Source: tensor.BF16, Rows: 3, BlockRows: 2, BlockCols: 2, Factor: 1}
	src, weight, scale := pair(f, h, tensor.Shape{6, 5}, 1)
	v := view(f, src, h, weight, scale)
	f.Add(tensortest.Bytes(f, v, "w"), uint8(2), uint8(3), uint8(5))
	f.Add(binary.LittleEndian.AppendUint64([]byte(magic), math.MaxUint64), uint8(1), uint8(1), uint8(1))
	f.Fuzz(func(t *testing.T, stored []byte, a, b, c uint8) {
		shape := tensor.Shape{int64(a), int64(b), int64(c)}
		for _, d := range []tensor.DType{tensor.FP8, tensor.INT8} {
			info := tensor.NewOpaque("w", d, shape, int64(len(stored)))
			rows, err := codecs.Open(info, tensor.ReaderBytes{R: bytes.NewReader(stored)})
			if err != nil {
				continue
			}
			out := make([]float32, shape.Elems())
			if err := rows.ReadRows(out, 0); err != nil {
				require.NotErrorIs(t, err, io.ErrUnexpectedEOF, "all bytes are there")
				t.Fatal(err)
			}
		}
	})
}

// The buffers of a panel are used again.
func TestReadRowsAllocates(t *testing.T) {
	h := Header{Element: tensor.F8_E4M3, Source: tensor.BF16, Rows: 1 << 10, BlockRows: 128, BlockCols: 128, Factor: 1}
	src, weight, scale := pair(t, h, tensor.Shape{1 << 10, 1 << 9}, 1)
	_, rows, err := codecs.OpenFrom(view(t, src, h, weight, scale), "w")
	require.NoError(t, err)
	panel := make([]float32, 4<<9)
	row := int64(0)
	require.Less(t, testing.AllocsPerRun(200, func() {
		require.NoError(t, rows.ReadRows(panel, row%(1<<10)))
		row += 4
	}), 2.0)
}

func BenchmarkDecode(b *testing.B) {
	h := Header{Element: tensor.F8_E4M3, Source: tensor.BF16, Rows: 1 << 10, BlockRows: 128, BlockCols: 128, Factor: 1}
	src, weight, scale := pair(b, h, tensor.Shape{1 << 10, 1 << 10}, 1)
	stored := tensortest.Bytes(b, view(b, src, h, weight, scale), "w")
	rows, err := codecs.Open(h.Info("w", weight.Shape), tensor.Memory(stored))
	require.NoError(b, err)
	dst := make([]float32, 1<<20)
	b.SetBytes(1 << 20)
	for b.Loop() {
		if err := rows.ReadRows(dst, 0); err != nil {
			b.Fatal(err)
		}
	}
}
