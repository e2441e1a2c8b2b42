package nf4

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/internal/tensortest"
	"github.com/seed18967229/nibble/tensor"
)

// random returns a blob of random codes and plausible absmax.
func random(rng *rand.Rand, d tensor.DType, h Header, shape tensor.Shape) (tensor.Info, tensor.Memory) {
	s := h.Sections(shape.Elems())
	fill := func(n int64) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		return b
	}
	scales := func(n int64) []byte {
		v := make([]float32, n/4)
		for i := range v {
			v[i] = rng.Float32()
		}
		return f32Bytes(v)
	}
	var m []byte
	absmax := scales
	if h.Double {
		m, absmax = f32Bytes(dynamicMap[:]), fill
	}
	return h.Info("w", d, shape), blob(h, shape.Elems(), m, scales(s.Nested), absmax(s.Absmax), fill(s.Codes))
}

// An assembled blob is the one laid out by hand, whatever was there before.
func TestAssemble(t *testing.T) {
	rng := rand.New(rand.NewPCG(31, 32))
	const n = 64*300 + 7
	for _, double := range []bool{false, true} {
		x := make([]float32, n)
		for i := range x {
			x[i] = float32(rng.NormFloat64())
		}
		enc, err := NewEncoder(tensor.NF4, 64, n)
		require.NoError(t, err)
		codes, err := enc.Append(nil, x)
		require.NoError(t, err)
		codes, err = enc.Finish(codes)
		require.NoError(t, err)
		h := Header{BlockSize: 64, Double: double, Source: tensor.BF16, Offset: 9}
		var dq *DoubleQuant
		var m, nested []byte
		absmax := f32Bytes(enc.Absmax())
		if double {
			dq = Double(enc.Absmax(), Mean(enc.Absmax()))
			m, nested, absmax = f32Bytes(dynamicMap[:]), f32Bytes(dq.NestedAbsmax), dq.Absmax
		}
		got := bytes.Repeat([]byte{0xff}, int(h.Sections(n).Size()))
		copy(got[len(got)-len(codes):], codes)
		h = h.Assemble(got, n, enc.Absmax(), dq)
		require.Equal(t, double, h.Offset != 0)
		require.Equal(t, []byte(blob(h, n, m, nested, absmax, codes)), got)
	}
}

// slow decodes element i of a blob from the description in doc.go.
func slow(d tensor.DType, h Header, elems int64, data []byte, i int64) float32 {
	f32 := func(off int64) float32 { return float32At(data[off:], 0) }
	s := h.Sections(elems)
	absmaxAt := s.Header + s.Map + s.Nested
	block := i / h.BlockSize
	var absmax float32
	if h.Double {
		q := int64(data[absmaxAt+block])
		absmax = float32(f32(s.Header+4*q)*f32(s.Header+s.Map+4*(block/256))) + h.Offset
	} else {
		absmax = f32(absmaxAt + 4*block)
	}
	c := data[absmaxAt+s.Absmax+i/2]
	if i%2 == 0 {
		c >>= 4
	}
	values, _ := Codebook(d)
	return values[c&15] * absmax
}

var shapes = []tensor.Shape{
	{1}, {7}, {64}, {1, 1}, {3, 64}, {5, 33}, {9, 172}, {4, 3, 31}, {2, 4097}, {300, 129}, {33, 1}, {0, 64}, {64, 0}, {}, {5, 4096},
}

func TestCodecDecodes(t *testing.T) {
	rng := rand.New(rand.NewPCG(21, 22))
	for _, shape := range shapes {
		for _, size := range []int64{32, 64, 4096} {
			for _, double := range []bool{false, true} {
				for _, d := range []tensor.DType{tensor.NF4, tensor.FP4} {
					h := Header{BlockSize: size, Double: double, Source: tensor.F16}
					if double {
						h.Offset = 0.3
					}
					info, data := random(rng, d, h, shape)
					n := shape.Elems()
					want := make([]float32, n)
					for i := range want {
						want[i] = slow(d, h, n, data, int64(i))
					}
					for name, b := range map[string]tensor.Bytes{
						"memory": data, "reader": tensor.ReaderBytes{R: bytes.NewReader(data)},
					} {
						rows, err := codecs.Open(info, b)
						require.NoError(t, err)
						got := make([]float32, n)
						require.NoError(t, rows.ReadRows(got, 0))
						require.Equal(t, want, got, "%v %v %v %s", shape, h, d, name)
						if name == "memory" {
							tensortest.TestTiles(t, rows, shape)
							w, ok := rows.(dotted)
							require.Equal(t, shape.Cols()%size == 0, ok)
							if ok {
								testDots(t, w, want)
							}
						}
						if n == 0 {
							continue
						}
						cols := shape.Cols()
						for range 10 {
							row := rng.Int64N(shape.Rows())
							k := 1 + rng.Int64N(shape.Rows()-row)
							part := make([]float32, k*cols)
							require.NoError(t, rows.ReadRows(part, row))
							require.Equal(t, want[row*cols:(row+k)*cols], part)
						}
						require.Error(t, rows.ReadRows(make([]float32, cols), shape.Rows()))
						require.Error(t, rows.ReadRows(make([]float32, cols), -1))
						if cols > 1 {
							require.Error(t, rows.ReadRows(make([]float32, cols-1), 0))
						}
					}
				}
			}
		}
	}
}

// testDots compares products with those of the decoded values in float64.
func testDots(t *testing.T, w dotted, values []float32) {
	rng := rand.New(rand.NewPCG(25, uint64(len(values))))
	rows, cols := int(w.info.Shape.Rows()), int(w.info.Shape.Cols())
	if rows == 0 || cols == 0 {
		return
	}
	first := rng.IntN(rows)
	m, n := 1+rng.IntN(5), 1+rng.IntN(rows-first)
	x, y := make([]float32, m*cols), make([]float32, m*n)
	for i := range x {
		x[i] = rng.Float32() - 0.5
	}
	for i := range y {
		y[i] = float32(i)
	}
	require.NoError(t, w.DotRows(y, n, x, m, first, n))
	for i, got := range y {
		want, size := float64(i), float64(i)
		for j, v := range x[i/n*cols:][:cols] {
			p := float64(v) * float64(values[(first+i%n)*cols+j])
			want, size = want+p, size+math.Abs(p)
		}
		require.InDelta(t, want, got, size*float64(cols+2)*0x1p-24)
	}
	require.Error(t, w.DotRows(y, n, x, m, rows-n+1, n))
	require.Error(t, w.DotRows(y, n, x, m, -1, n))
}

func TestCodecConcurrent(t *testing.T) {
	rng := rand.New(rand.NewPCG(23, 24))
	h := Header{BlockSize: 64, Double: true, Source: tensor.BF16, Offset: 0.5}
	info, data := random(rng, tensor.NF4, h, tensor.Shape{97, 171})
	rows, err := codecs.Open(info, tensor.ReaderBytes{R: bytes.NewReader(data)})
	require.NoError(t, err)
	want := make([]float32, info.Shape.Elems())
	require.NoError(t, rows.ReadRows(want, 0))
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for row := g; row < 97; row += 4 {
				got := make([]float32, 171)
				if err := rows.ReadRows(got, int64(row)); err != nil || !slices.Equal(got, want[row*171:(row+1)*171]) {
					t.Errorf("row %d: %v", row, err)
				}
			}
		})
	}
	wg.Wait()
}

// recorder notes which bytes are asked for.
type recorder struct {
	tensor.Memory
	read int64
}

func (r *recorder) Slice(buf []byte, off, n int64) ([]byte, error) {
	r.read += n
	return r.Memory.Slice(buf, off, n)
}

func TestCodecReadsOnlyWhatItNeeds(t *testing.T) {
	rng := rand.New(rand.NewPCG(25, 26))
	h := Header{BlockSize: 64, Double: true, Source: tensor.BF16}
	info, data := random(rng, tensor.NF4, h, tensor.Shape{1000, 172})
	r := &recorder{Memory: data}
	rows, err := codecs.Open(info, r)
	require.NoError(t, err)
	require.EqualValues(t, headerSize+1+mapSize, r.read)
	r.read = 0
	require.NoError(t, rows.ReadRows(make([]float32, 172), 501))
	// 172 elements in 86 bytes, over 3 or 4 blocks, of 1 or 2 nested ones.
	require.LessOrEqual(t, r.read, int64(86+4+8))

	rows, err = codecs.Open(info, data)
	require.NoError(t, err)
	dst := make([]float32, info.Shape.Elems())
	require.Zero(t, testing.AllocsPerRun(10, func() { _ = rows.ReadRows(dst, 0) }), "memory must be used in place")
}

func TestHeader(t *testing.T) {
	for _, h := range []Header{
		{BlockSize: 32, Source: tensor.F32},
		{BlockSize: 64, Double: true, Source: tensor.BF16, Offset: 0.0527},
		{BlockSize: 4096, Double: true, Source: tensor.F16, Offset: -1},
	} {
		rng := rand.New(rand.NewPCG(1, 2))
		info, data := random(rng, tensor.FP4, h, tensor.Shape{3, 50})
		require.EqualValues(t, len(data), info.Size())
		got, err := ReadHeader(info, data)
		require.NoError(t, err)
		require.Equal(t, h, got)
		src := tensortest.NewSource(t, nil, tensortest.Tensor{Info: info, Data: data})
		tensortest.TestSource(t, src)
		got, err = Describe(src, "w")
		require.NoError(t, err)
		require.Equal(t, h, got)
	}
	src := tensortest.NewSource(t, nil, tensortest.Normal("x", tensor.Shape{2}, 1, 1))
	_, err := Describe(src, "x")
	require.ErrorIs(t, err, tensor.ErrUnsupported)
	_, err = Describe(src, "y")
	require.ErrorIs(t, err, tensor.ErrNotFound)

	require.ErrorIs(t, Header{BlockSize: 64, Source: tensor.F64}.Check(), tensor.ErrUnsupported)
	require.ErrorIs(t, Header{BlockSize: 100, Source: tensor.F32}.Check(), tensor.ErrUnsupported)
}

func TestOpenErrors(t *testing.T) {
	rng := rand.New(rand.NewPCG(27, 28))
	h := Header{BlockSize: 64, Double: true, Source: tensor.BF16}
	shape := tensor.Shape{5, 100}
	info, good := random(rng, tensor.NF4, h, shape)
	put := func(off int, v uint32) tensor.Memory {
		b := bytes.Clone(good)
		binary.LittleEndian.PutUint32(b[off:], v)
		return b
	}
	for name, c := range map[string]struct {
		info tensor.Info
		data tensor.Bytes
		want error
		text string
	}{
		"empty":           {info, tensor.Memory(nil), tensor.ErrMalformed, "header"},
		"short":           {info, good[:len(good)-1], tensor.ErrMalformed, "the last of"},
		"magic":           {info, put(0, 0), tensor.ErrMalformed, "not the header"},
		"block size 0":    {info, put(4, 0), tensor.ErrUnsupported, "block size 0"},
		"block size 100":  {info, put(4, 100), tensor.ErrUnsupported, "block size 100"},
		"block size 2^31": {info, put(4, 1<<31), tensor.ErrUnsupported, "block size"},
		"flags":           {info, put(8, 3), tensor.ErrMalformed, "not the header"},
		"plain":           {info, put(8, 0), tensor.ErrMalformed, "bytes where"},
		"dtype":           {info, put(12, 3), tensor.ErrMalformed, "not the header"},
		"elements":        {info, put(16, 501), tensor.ErrMalformed, "501 elements where shape [5, 100] has 500"},
		"elements 2^62":   {info, put(20, 1<<30), tensor.ErrMalformed, "elements where"},
		"reserved":        {info, put(28, 1), tensor.ErrMalformed, "not the header"},
		"other size":      {tensor.NewOpaque("w", tensor.NF4, shape, info.Size()+1), good, tensor.ErrMalformed, "bytes where"},
		"negative size":   {tensor.NewOpaque("w", tensor.NF4, shape, -1), good, tensor.ErrMalformed, "size -1"},
		"bad shape":       {tensor.NewOpaque("w", tensor.NF4, tensor.Shape{-1, -500}, info.Size()), good, tensor.ErrMalformed, "negative"},
		"other dtype":     {tensor.Info{Name: "w", DType: tensor.F32, Shape: shape}, good, tensor.ErrUnsupported, "F32"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Codecs()[0].Open(c.info, c.data)
			require.ErrorIs(t, err, c.want)
			require.ErrorContains(t, err, c.text)
		})
	}
	_, err := Codecs()[1].Open(info, good)
	require.ErrorIs(t, err, tensor.ErrUnsupported)
}

// A reader that breaks shows its own error.
func TestReadErrors(t *testing.T) {
	rng := rand.New(rand.NewPCG(29, 30))
	h := Header{BlockSize: 64, Double: true, Source: tensor.BF16}
	info, data := random(rng, tensor.NF4, h, tensor.Shape{100, 100})
	s := h.Sections(info.Shape.Elems())
	for _, from := range []int64{0, s.Header, s.Header + s.Map, s.Header + s.Map + s.Nested, s.Header + s.Map + s.Nested + s.Absmax} {
		r := &breaking{Reader: bytes.NewReader(data), from: from, to: from + 4}
		rows, err := codecs.Open(info, tensor.ReaderBytes{R: r})
		if err == nil {
			err = rows.ReadRows(make([]float32, 300), 0)
		}
		require.ErrorIs(t, err, errDisk, "broken from %d", from)
		require.NotErrorIs(t, err, tensor.ErrMalformed)
	}
}

var errDisk = fmt.Errorf("disk: %w", io.ErrClosedPipe)

type breaking struct {
	*bytes.Reader
	from, to int64
}

func (b *breaking) ReadAt(p []byte, off int64) (int, error) {
	if off >= b.from && off < b.to {
		return 0, errDisk
	}
	return b.Reader.ReadAt(p, off)
}

func FuzzOpen(f *testing.F) {
	rng := rand.New(rand.NewPCG(31, 32))
	for _, h := range []Header{
		{BlockSize: 32, Source: tensor.F32},
		{BlockSize: 64, Double: true, Source: tensor.BF16, Offset: 0.1},
	} {
		_, data := random(rng, tensor.NF4, h, tensor.Shape{5, 33})
		f.Add([]byte(data), int64(5), int64(33), true)
		f.Add([]byte(data[:40]), int64(5), int64(33), false)
	}
	f.Fuzz(func(t *testing.T, data []byte, rows, cols int64, nf4 bool) {
		d := tensor.FP4
		if nf4 {
			d = tensor.NF4
		}
		shape := tensor.Shape{rows, cols}
		info := tensor.NewOpaque("w", d, shape, int64(len(data)))
		r, err := codecs.Open(info, tensor.Memory(data))
		if err != nil {
			return
		}
		// What opens, reads: every element is backed by half a byte.
		require.LessOrEqual(t, shape.Elems(), int64(2*len(data)))
		require.NoError(t, r.ReadRows(make([]float32, shape.Elems()), 0))
		h, err := ReadHeader(info, tensor.Memory(data))
		require.NoError(t, err)
		require.Equal(t, data[:headerSize], h.Append(nil, shape.Elems()))
	})
}

func BenchmarkDecode(b *testing.B) {
	rng := rand.New(rand.NewPCG(33, 34))
	for _, double := range []bool{false, true} {
		name := "plain"
		if double {
			name = "double"
		}
		b.Run(name, func(b *testing.B) {
			info, data := random(rng, tensor.NF4, Header{BlockSize: 64, Double: double, Source: tensor.BF16}, tensor.Shape{64, 4096})
			rows, err := codecs.Open(info, data)
			require.NoError(b, err)
			dst := make([]float32, info.Shape.Elems())
			b.SetBytes(int64(4 * len(dst)))
			for b.Loop() {
				require.NoError(b, rows.ReadRows(dst, 0))
			}
		})
	}
}
