package torch

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// elements lists a view's bytes by its definition, one element after another.
func elements(data []byte, v *view, swap bool) []byte {
	var out []byte
	index := make([]int64, len(v.size))
	for range v.elems() {
		at := v.offset
		for i, n := range index {
			at += n * v.stride[i]
		}
		e := slices.Clone(data[at*v.dtype.size:][:v.dtype.size])
		if swap {
			for p := e; len(p) > 0; p = p[v.dtype.swap:] {
				slices.Reverse(p[:v.dtype.swap])
			}
		}
		out = append(out, e...)
		for i := len(index) - 1; i >= 0; i-- {
			if index[i]++; index[i] < v.size[i] {
				break
			}
			index[i] = 0
		}
	}
	return out
}

// randomView returns a view of up to five dimensions that fits n elements: any
// strides, among them 0 and such that overlap.
func randomView(rng *rand.Rand, d *dtype, n int64) *view {
	for {
		v := &view{storage: &storage{bytes: n * d.size}, dtype: d, offset: rng.Int64N(8)}
		for range rng.IntN(6) {
			v.size = append(v.size, 1+rng.Int64N(7))
			v.stride = append(v.stride, []int64{0, 1, 2, 3, 7, 12, 40, 90}[rng.IntN(8)])
		}
		if rng.IntN(2) == 0 {
			// The strides of a contiguous tensor, shuffled or not.
			at := int64(1)
			for i := len(v.size) - 1; i >= 0; i-- {
				v.stride[i] = at
				at *= v.size[i]
			}
			if rng.IntN(2) == 0 {
				rng.Shuffle(len(v.size), func(i, j int) {
					v.size[i], v.size[j] = v.size[j], v.size[i]
					v.stride[i], v.stride[j] = v.stride[j], v.stride[i]
				})
			}
		}
		if v.check() == nil {
			return v
		}
	}
}

// TestViews compares views of every kind with their definition, under limits
// that cut them into many pieces.
func TestViews(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	data := make([]byte, 4000)
	for i := range data {
		data[i] = byte(rng.Uint32())
	}
	all := []limits{defaultLimits, {8, 8, 0}, {16, 64, 8}, {64, 16, 1000}, {200, 24, 16}, {24, 200, 30}}
	for range 3000 {
		d := dtypes[rng.IntN(len(dtypes))]
		if d.size > 8 {
			continue // no view of it is ever read
		}
		v := randomView(rng, d, int64(len(data))/d.size)
		swap := rng.IntN(2) == 0
		want := elements(data, v, swap)
		got := make([]byte, len(want))
		n, err := v.open(bytes.NewReader(data), swap).ReadAt(got, 0)
		require.NoError(t, err)
		require.Equal(t, len(want), n)
		require.Equal(t, want, got, "%v %v+%d", v.size, v.stride, v.offset)

		g := (&gatherer{
			r: bytes.NewReader(data), begin: v.offset * d.size, elem: d.size, dims: fold(v.size, v.stride), limits: all[rng.IntN(len(all))],
		}).plan()
		if swap {
			g.swap = d.swap
		}
		b, err := io.ReadAll(io.NewSectionReader(g, 0, math.MaxInt64))
		require.NoError(t, err)
		require.Equal(t, want, b, "%v %v+%d", v.size, v.stride, v.offset)
		for range 5 {
			off := rng.IntN(len(want))
			piece := make([]byte, 1+rng.IntN(len(want)))
			n, err := g.ReadAt(piece, int64(off))
			require.Equal(t, min(len(piece), len(want)-off), n)
			require.Equal(t, n < len(piece), err == io.EOF)
			require.Equal(t, want[off:off+n], piece[:n])
		}
		require.LessOrEqual(t, int64(len(g.buf)), g.panel)
		require.LessOrEqual(t, int64(len(g.from)), g.span)
	}
}

func TestFold(t *testing.T) {
	for _, c := range []struct {
		size, stride []int64
		want         []dim
	}{
		{nil, nil, []dim{{1, 1}}},
		{[]int64{1, 1}, []int64{7, 0}, []dim{{1, 1}}},
		{[]int64{2, 3, 4}, []int64{12, 4, 1}, []dim{{24, 1}}},
		{[]int64{2, 1, 4}, []int64{4, 99, 1}, []dim{{8, 1}}},
		{[]int64{2, 3, 4}, []int64{24, 8, 2}, []dim{{24, 2}}},
		{[]int64{3, 4}, []int64{1, 3}, []dim{{3, 1}, {4, 3}}},
		{[]int64{5, 6, 4}, []int64{0, 0, 1}, []dim{{30, 0}, {4, 1}}},
		{[]int64{2, 3, 4}, []int64{100, 4, 1}, []dim{{2, 100}, {12, 1}}},
	} {
		require.Equal(t, c.want, fold(c.size, c.stride))
	}
}

// TestContiguousIsNotCopied checks that a contiguous view is a section of the
// file.
func TestContiguousIsNotCopied(t *testing.T) {
	d := &dtype{size: 4, swap: 4}
	v := &view{storage: &storage{bytes: 400, at: 8}, dtype: d, offset: 5, size: []int64{4, 1, 6}, stride: []int64{6, 3, 1}}
	r, ok := v.open(bytes.NewReader(make([]byte, 408)), false).(*io.SectionReader)
	require.True(t, ok)
	outer, off, n := r.Outer()
	require.IsType(t, &bytes.Reader{}, outer)
	require.EqualValues(t, 28, off)
	require.EqualValues(t, 96, n)
	_, ok = v.open(bytes.NewReader(make([]byte, 408)), true).(*gatherer)
	require.True(t, ok)
}

// calls counts what is read.
type calls struct {
	io.ReaderAt
	n, bytes int
}

func (c *calls) ReadAt(p []byte, off int64) (int, error) {
	c.n++
	c.bytes += len(p)
	return c.ReaderAt.ReadAt(p, off)
}

// TestReads checks that a view is not gathered element by element where that
// can be helped.
func TestReads(t *testing.T) {
	const n = 1024
	data := make([]byte, 4*n*n)
	for i := range n * n {
		binary.LittleEndian.PutUint32(data[4*i:], uint32(i))
	}
	d := &dtype{size: 4, swap: 4}
	for name, c := range map[string]struct {
		size, stride []int64
		calls, bytes int
	}{
		"transposed":  {[]int64{n, n}, []int64{1, n}, 4 * n, 4 * n * n},      // four panels of 256 rows
		"columns":     {[]int64{2 * n, 16}, []int64{n / 2, 1}, 4, 4 * n * n}, // the holes are read over
		"far apart":   {[]int64{n / 4, 1}, []int64{4 * n, 1}, n / 4, n},      // and not if they are large
		"repeated":    {[]int64{512, n}, []int64{0, 1}, 2, 2 * 4 * n},        // once for each panel
		"every other": {[]int64{n * n / 2}, []int64{2}, 4, 4 * n * n},
	} {
		r := &calls{ReaderAt: bytes.NewReader(data)}
		v := &view{storage: &storage{bytes: int64(len(data))}, dtype: d, size: c.size, stride: c.stride}
		require.NoError(t, v.check())
		g := &gatherer{r: r, elem: 4, dims: fold(c.size, c.stride), limits: limits{1 << 20, 1 << 20, 2 << 10}}
		got, err := io.ReadAll(io.NewSectionReader(g.plan(), 0, 4*v.elems()))
		require.NoError(t, err)
		require.True(t, bytes.Equal(elements(data, v, false), got), name)
		require.LessOrEqual(t, r.n, c.calls, name)
		require.LessOrEqual(t, r.bytes, c.bytes, name)
	}
}

func TestGathererErrors(t *testing.T) {
	d := &dtype{size: 4, swap: 4}
	v := &view{storage: &storage{bytes: 400}, dtype: d, size: []int64{10, 10}, stride: []int64{1, 10}}
	_, err := v.open(bytes.NewReader(make([]byte, 399)), false).ReadAt(make([]byte, 400), 0)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	broken := errors.New("the disk is broken")
	r := v.open(failing{broken}, false)
	for range 2 { // the panel that failed is not kept
		_, err = r.ReadAt(make([]byte, 4), 0)
		require.ErrorIs(t, err, broken)
	}
	_, err = r.ReadAt(make([]byte, 4), 400)
	require.Equal(t, io.EOF, err)
	_, err = r.ReadAt(make([]byte, 4), -1)
	require.Equal(t, io.EOF, err)
}

type failing struct{ err error }

func (f failing) ReadAt([]byte, int64) (int, error) { return 0, f.err }

func BenchmarkTransposed(b *testing.B) {
	const n = 4096
	data := make([]byte, 2*n*n)
	v := &view{storage: &storage{bytes: int64(len(data))}, dtype: &dtype{size: 2, swap: 2}, size: []int64{n, n}, stride: []int64{1, n}}
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if _, err := io.Copy(io.Discard, io.NewSectionReader(v.open(bytes.NewReader(data), false), 0, int64(len(data)))); err != nil {
			b.Fatal(err)
		}
	}
}
