package kernel

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// codingsByName are all there are, with where a block has float16 scales.
var codingsByName = map[string]struct {
	Coding
	halves []int
}{
	"F32": {CodingF32, nil}, "F16": {CodingF16, []int{0}}, "BF16": {CodingBF16, nil},
	"Q8_0": {CodingQ8_0, []int{0}}, "Q4_0": {CodingQ4_0, []int{0}}, "Q5_0": {CodingQ5_0, []int{0}},
	"MXFP4": {CodingMXFP4, nil}, "IQ4_NL": {CodingIQ4_NL, []int{0}}, "IQ4_XS": {CodingIQ4_XS, []int{0}},
	"Q2_K": {CodingQ2_K, []int{80, 82}}, "Q3_K": {CodingQ3_K, []int{108}}, "Q4_K": {CodingQ4_K, []int{0, 2}},
	"Q5_K": {CodingQ5_K, []int{0, 2}}, "Q6_K": {CodingQ6_K, []int{208}},
}

// fillCoded fills blocks with codes of all kinds and scales of numbers near 1.
func fillCoded(rng *rand.Rand, name string, b []byte) {
	c := codingsByName[name]
	fillBytes(rng, b)
	t := codedTraits[c.Coding]
	for ; len(b) > 0; b = b[t.bytes:] {
		for _, at := range c.halves {
			binary.LittleEndian.PutUint16(b[at:], F32ToF16(float32(rng.NormFloat64())/16))
		}
		switch name {
		case "F32":
			binary.LittleEndian.PutUint32(b, math.Float32bits(float32(rng.NormFloat64())))
		case "BF16":
			binary.LittleEndian.PutUint16(b, F32ToBF16(float32(rng.NormFloat64())))
		case "MXFP4":
			b[0] = byte(125 + rng.IntN(5))
		}
	}
}

func TestEachCodingIsTested(t *testing.T) { require.Len(t, codingsByName, int(codings)) }

// Any bytes are a block: scales that are zero, subnormal, infinite and NaN among them.
func TestDecodeCodedVariants(t *testing.T) {
	for name, c := range codingsByName {
		rng := rand.New(rand.NewPCG(61, 62))
		trait := codedTraits[c.Coding]
		eachVariant(t, func(t *testing.T) {
			for blocks := range 6 {
				guarded(t, []int{4 * blocks * trait.elems, blocks * trait.bytes}, func(b [][]byte) {
					for turn := range 10 {
						fillBytes(rng, b[1])
						if turn > 5 {
							fillCoded(rng, name, b[1])
						}
						if blocks > 0 && name == "MXFP4" {
							b[1][0] = []byte{0, 1, 2, 254, 255}[turn%5]
						}
						want, got := make([]float32, blocks*trait.elems), floatsOf(b[0])
						trait.decode(want, b[1])
						c.Decode(got, b[1])
						for i, w := range want {
							if (w == w || got[i] == got[i]) && bitsOf(w) != bitsOf(got[i]) {
								require.Failf(t, "bits differ", "%s: element %d of %d blocks: %v, want %v", name, i, blocks, got[i], w)
							}
						}
					}
				})
			}
			require.Panics(t, func() { c.Decode(make([]float32, trait.elems), make([]byte, trait.bytes-1)) })
		})
	}
}

func TestDotCodedVariants(t *testing.T) {
	for name, c := range codingsByName {
		trait := codedTraits[c.Coding]
		list := []int{1, 2, 3, 5}
		switch trait.elems {
		case 1:
			list = []int{1, 7, 63, 64, 65, 130, 8192, 8192 + 100}
		case 32:
			list = append(list, 8192/32+3)
		case 256:
			list = append(list, 8192/256+1)
		}
		rng := rand.New(rand.NewPCG(63, 64))
		eachVariant(t, func(t *testing.T) {
			for _, blocks := range list {
				cols := blocks * trait.elems
				for _, n := range []int{1, 2, 5} {
					for m := range 9 {
						if cols > 4096 && m != 1 && m != 7 {
							continue
						}
						ldy := n + rng.IntN(3)
						guarded(t, []int{4 * (max(0, m-1)*ldy + n), 4 * m * cols, n * blocks * trait.bytes}, func(b [][]byte) {
							y, x := normals(rng, floatsOf(b[0])), normals(rng, floatsOf(b[1]))
							fillCoded(rng, name, b[2])
							w := make([]float32, n*cols)
							trait.decode(w, b[2])
							old := append([]float32(nil), y...)
							c.Dot(y, ldy, x, m, cols, b[2], n)
							requireDots(t, old, y, ldy, x, cols, m, w, sizeOf(name, w, b[2]), n, cols)
						})
					}
				}
			}
			elems, bytes := trait.elems, trait.bytes
			dot := func(y, x, src int) {
				c.Dot(make([]float32, y), 2, make([]float32, x), 2, elems, make([]byte, src), 2)
			}
			dot(4, 2*elems, 2*bytes)
			require.Panics(t, func() { dot(3, 2*elems, 2*bytes) })
			require.Panics(t, func() { dot(4, 2*elems-1, 2*bytes) })
			require.Panics(t, func() { dot(4, 2*elems, 2*bytes-1) })
		})
	}
}

// sizeOf returns what each element counts in the bound of a product: its magnitude, or where it has
// a low end the magnitudes of both parts of it.
func sizeOf(name string, w []float32, src []byte) []float32 {
	c := codingsByName[name]
	size := append([]float32(nil), w...)
	if len(c.halves) < 2 {
		return size
	}
	t := codedTraits[c.Coding]
	other := append([]byte(nil), src...)
	for b := other; len(b) > 0; b = b[t.bytes:] {
		b[c.halves[1]+1] ^= 0x80
	}
	t.decode(size, other)
	for i, v := range w {
		size[i] = abs32(size[i]) + abs32(v)
	}
	return size
}

// requireDots compares y, which was old, with the dot products of rows of x and w by their
// definition.
func requireDots(t *testing.T, old, y []float32, ldy int, x []float32, ldx, m int, w, size []float32, n, k int) {
	t.Helper()
	for i := range y {
		r, c := i/ldy, i%ldy
		if c >= n || m == 0 {
			if old[i] != y[i] {
				require.Failf(t, "what is beside the product changed", "element %d", i)
			}
			continue
		}
		sum, _ := dot64(x[r*ldx:][:k], w[c*k:])
		_, most := dot64(x[r*ldx:][:k], size[c*k:])
		if bound := (most + math.Abs(float64(old[i]))) * float64(k+2) * 0x1p-24; !(math.Abs(float64(old[i])+sum-float64(y[i])) <= bound) {
			require.InDelta(t, float64(old[i])+sum, y[i], bound)
		}
	}
}

func TestDotBytesVariants(t *testing.T) {
	for c := range byteCodings {
		rng := rand.New(rand.NewPCG(65, 66))
		values := c.Values()
		eachVariant(t, func(t *testing.T) {
			for _, k := range []int{1, 63, 64, 65, 128, 200, 8192 + 70} {
				for _, n := range []int{1, 2, 5} {
					for m := range 8 {
						if k > 4096 && m != 1 && m != 7 {
							continue
						}
						ldx, stride, ldy := k+rng.IntN(3), k+rng.IntN(3), n+rng.IntN(3)
						guarded(t, []int{4 * (max(0, m-1)*ldy + n), 4 * (max(0, m-1)*ldx + k), (n-1)*stride + k, 4 * n}, func(b [][]byte) {
							y, x, scales := normals(rng, floatsOf(b[0])), normals(rng, floatsOf(b[1])), normals(rng, floatsOf(b[3]))
							fillBytes(rng, b[2])
							for i, q := range b[2] {
								if v := values[q]; v-v != 0 {
									b[2][i] = 1 // subnormal
								}
							}
							factor := []float32{1, float32(1) / 127}[n%2]
							w := make([]float32, n*k)
							for i := range w {
								w[i] = float32(values[b[2][i/k*stride+i%k]]*scales[i/k]) * factor
							}
							old := append([]float32(nil), y...)
							c.Dot(y, ldy, x, ldx, m, k, b[2], stride, scales, factor, n)
							requireDots(t, old, y, ldy, x, ldx, m, w, w, n, k)
						})
					}
				}
			}
			dot := func(y, x, src, scales int) {
				c.Dot(make([]float32, y), 2, make([]float32, x), 64, 2, 64, make([]byte, src), 64, make([]float32, scales), 1, 2)
			}
			dot(4, 128, 128, 2)
			require.Panics(t, func() { dot(3, 128, 128, 2) })
			require.Panics(t, func() { dot(4, 127, 128, 2) })
			require.Panics(t, func() { dot(4, 128, 127, 2) })
			require.Panics(t, func() { dot(4, 128, 128, 1) })
		})
	}
}

// Each byte alone, among zeros: its value as the table has it, NaN and infinities too.
func TestDotEachByte(t *testing.T) {
	for c := range byteCodings {
		values := c.Values()
		eachVariant(t, func(t *testing.T) {
			for q := range 256 {
				for _, m := range []int{1, 2, 4} {
					src, x, y := make([]byte, 128), make([]float32, 64*m), make([]float32, 2*m)
					src[64+q%64] = byte(q)
					for i := range x {
						x[i] = 1
					}
					c.Dot(y, 2, x, 64, m, 64, src, 64, []float32{1, 1}, 1, 2)
					for i := range m {
						require.Zero(t, y[2*i], "the row before is whole")
						if v := values[q]; v == v {
							require.Equal(t, v, y[2*i+1], "byte %#x", q)
						} else {
							require.True(t, y[2*i+1] != y[2*i+1], "byte %#x is %v, want NaN", q, y[2*i+1])
						}
					}
				}
			}
		})
	}
}

// storedIn is a matrix of rows in a coding.
type storedIn struct {
	Coding
	rows, cols int
	data       []byte
}

func newStored(rng *rand.Rand, name string, rows, cols int) storedIn {
	c := codingsByName[name].Coding
	s := storedIn{c, rows, cols, make([]byte, rows*cols/codedTraits[c].elems*codedTraits[c].bytes)}
	fillCoded(rng, name, s.data)
	return s
}

func (s storedIn) Dims() (rows, cols int) { return s.rows, s.cols }
func (s storedIn) TileStep() int          { return codedTraits[s.Coding].elems }

func (s storedIn) at(row, col int) []byte {
	t := codedTraits[s.Coding]
	return s.data[(row*s.cols+col)/t.elems*t.bytes:]
}

func (s storedIn) DecodeRows(dst []float32, row int) error {
	s.Decode(dst, s.at(row, 0))
	return nil
}

func (s storedIn) DecodeTile(dst []float32, ld, row, rows, col, cols int) error {
	for i := range rows {
		s.Decode(dst[i*ld:][:cols], s.at(row+i, col))
	}
	return nil
}

func (s storedIn) DotRows(y []float32, ldy int, x []float32, m, row, n int) error {
	s.Dot(y, ldy, x, m, s.cols, s.at(row, 0)[:n*len(s.data)/s.rows], n)
	return nil
}

// The bits of one row of x depend neither on how many goroutines share the work, nor on
// which vectors the machine has.
func TestDotCodedBits(t *testing.T) {
	for name := range codingsByName {
		t.Run(name, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(67, 68))
			const rows, cols = 200, 1280
			w := newStored(rng, name, rows, cols)
			x := normals(rng, make([]float32, cols))
			var want []float32
			for _, v := range variants() {
				if v == &plain {
					continue
				}
				with(t, v)
				for _, workers := range []int{1, 4} {
					func() {
						defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(workers))
						y := make([]float32, rows)
						require.NoError(t, MulT(y, x, 1, w, false))
						if want == nil {
							want = y
						}
						requireBits(t, want, y, fmt.Sprintf("%s with %d", v.name, workers))
					}()
				}
			}
		})
	}
}

// BenchmarkDotCoded multiplies what the second-level cache holds: what a processor can
// decode, however fast memory is. The best turn counts.
func BenchmarkDotCoded(b *testing.B) {
	const rows, cols = 64, 4096
	for name, c := range codingsByName {
		rng := rand.New(rand.NewPCG(1, 2))
		w := newStored(rng, name, rows, cols)
		x, y := normals(rng, make([]float32, 4*cols)), make([]float32, 4*rows)
		for _, m := range []int{1, 2, 4} {
			for _, v := range variants() {
				b.Run(fmt.Sprintf("%s/%d/%s", name, m, v.name), func(b *testing.B) {
					with(b, v)
					best := time.Hour
					for b.Loop() {
						start := time.Now()
						c.Dot(y, rows, x, m, cols, w.data, rows)
						best = min(best, time.Since(start))
					}
					b.ReportMetric(float64(len(w.data))/float64(best.Nanoseconds()), "GB/s")
					b.ReportMetric(float64(m*rows*cols)/float64(best.Nanoseconds()), "Gmul/s")
				})
			}
		}
	}
}
