package kernel

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
)

// floatsOf returns the float32 values that bytes are.
func floatsOf(b []byte) []float32 {
	if len(b) == 0 {
		return nil
	}
	return unsafe.Slice((*float32)(unsafe.Pointer(&b[0])), len(b)/4)
}

// conversions are all that have variants, as functions from bytes to bytes.
var conversions = []struct {
	name    string
	in, out int // bytes per element
	run     func(v *convertLoops, dst, src []byte)
}{
	{"DecodeBF16", 2, 4, func(v *convertLoops, dst, src []byte) { v.decodeBF16(floatsOf(dst), src) }},
	{"EncodeBF16", 4, 2, func(v *convertLoops, dst, src []byte) { v.encodeBF16(dst, floatsOf(src)) }},
	{"RoundBF16", 4, 4, func(v *convertLoops, dst, src []byte) { copy(dst, src); v.roundBF16(floatsOf(dst)) }},
	{"DecodeF16", 2, 4, func(v *convertLoops, dst, src []byte) { v.decodeF16(floatsOf(dst), src) }},
	{"EncodeF16", 4, 2, func(v *convertLoops, dst, src []byte) { v.encodeF16(dst, floatsOf(src)) }},
	{"DecodeF64", 8, 4, func(v *convertLoops, dst, src []byte) { v.decodeF64(floatsOf(dst), src) }},
	{"EncodeF64", 4, 8, func(v *convertLoops, dst, src []byte) { v.encodeF64(dst, floatsOf(src)) }},
}

// sameConversion fails where the variant in use and plain Go differ.
func sameConversion(t *testing.T, c int, src []byte) {
	x := conversions[c]
	n := len(src) / x.in
	want, got := make([]byte, x.out*n), make([]byte, x.out*n)
	x.run(&convertGo, want, src[:n*x.in])
	x.run(&use.convertLoops, got, src[:n*x.in])
	for i := range n {
		if w, g := want[i*x.out:(i+1)*x.out], got[i*x.out:(i+1)*x.out]; string(w) != string(g) {
			t.Fatalf("%s %s, %d of %d: % x gives % x, not % x", use.name, x.name, i, n, src[i*x.in:(i+1)*x.in], g, w)
		}
	}
}

func TestConversionLengths(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	eachVariant(t, func(t *testing.T) {
		for _, x := range conversions {
			for _, n := range lengths() {
				guarded(t, []int{x.out * n, x.in * n}, func(b [][]byte) {
					for i := range b[1] {
						b[1][i] = byte(rng.Uint32())
					}
					want := make([]byte, x.out*n)
					x.run(&convertGo, want, b[1])
					x.run(&use.convertLoops, b[0], b[1])
					require.Equal(t, want, b[0], "%s of %d", x.name, n)
				})
			}
		}
	})
}

// TestConversionsOfAll has every pattern of 16 bits, and around every exponent of
// float32 and float64 those mantissas that are ties, just beside them, and random.
func TestConversionsOfAll(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	var halves, singles, doubles []byte
	for c := range 1 << 16 {
		halves = binary.LittleEndian.AppendUint16(halves, uint16(c))
	}
	for top := range uint32(1 << 9) {
		for _, shift := range []int{13, 16} {
			for range 300 {
				kept := rng.Uint32() & (1<<23 - 1) >> shift << shift
				for _, low := range []uint32{0, 1, 1<<(shift-1) - 1, 1 << (shift - 1), 1<<(shift-1) + 1, rng.Uint32() & (1<<shift - 1)} {
					singles = binary.LittleEndian.AppendUint32(singles, top<<23|kept|low)
				}
			}
		}
		// Halves that are not normal are rounded at any place.
		for place := range 23 {
			v := top<<23 | 1<<place
			for _, v := range []uint32{v - 1, v, v + 1} {
				singles = binary.LittleEndian.AppendUint32(singles, v)
			}
		}
	}
	for top := range uint64(1 << 12) {
		for range 20 {
			kept := rng.Uint64() & (1<<52 - 1) >> 29 << 29
			for _, low := range []uint64{0, 1, 1<<28 - 1, 1 << 28, 1<<28 + 1, rng.Uint64() & (1<<29 - 1)} {
				doubles = binary.LittleEndian.AppendUint64(doubles, top<<52|kept|low)
			}
		}
	}
	eachVariant(t, func(t *testing.T) {
		for c, x := range conversions {
			sameConversion(t, c, map[int][]byte{2: halves, 4: singles, 8: doubles}[x.in])
		}
	})
}

func TestConversionsPanicOnShortBytes(t *testing.T) {
	eachVariant(t, func(t *testing.T) {
		x := make([]float32, 100)
		for _, f := range []func([]float32, []byte){DecodeF32, DecodeF64, DecodeF16, DecodeBF16} {
			require.Panics(t, func() { f(x, make([]byte, 199)) })
		}
		for _, f := range []func([]byte, []float32){EncodeF32, EncodeF64, EncodeF16, EncodeBF16} {
			require.Panics(t, func() { f(make([]byte, 199), x) })
		}
	})
}

func TestF32Bytes(t *testing.T) {
	x := []float32{1, -2.5, float32(math.Inf(1)), math.Float32frombits(0x7f800001)}
	b := make([]byte, 16)
	EncodeF32(b, x)
	for i, v := range x {
		require.Equal(t, math.Float32bits(v), binary.LittleEndian.Uint32(b[4*i:]))
	}
	got := make([]float32, 4)
	DecodeF32(got, b)
	for i := range x {
		require.Equal(t, bitsOf(x[i]), bitsOf(got[i]))
	}
}

// BenchmarkConvert has the traffic of each conversion, in and out, beside that of a
// copy: in the second-level cache and in memory.
func BenchmarkConvert(b *testing.B) {
	for _, n := range []int{1 << 16, 1 << 26} {
		src, dst := make([]byte, 8*n), make([]byte, 8*n)
		rng := rand.New(rand.NewPCG(1, 2))
		for i, v := range normal(rng, 1<<16) {
			for at := 4 * i; at < len(src); at += 4 << 16 {
				binary.LittleEndian.PutUint32(src[at:], math.Float32bits(v))
			}
		}
		copy(dst, src)
		b.Run(fmt.Sprintf("copy/%d", n), func(b *testing.B) {
			for b.Loop() {
				copy(dst[:4*n], src)
			}
			gbs(b, 8*n)
		})
		for _, x := range conversions {
			for _, v := range variants() {
				b.Run(fmt.Sprintf("%s/%s/%d", x.name, v.name, n), func(b *testing.B) {
					if x.name == "RoundBF16" {
						for b.Loop() {
							v.roundBF16(floatsOf(dst[:4*n]))
						}
					} else {
						for b.Loop() {
							x.run(&v.convertLoops, dst[:x.out*n], src[:x.in*n])
						}
					}
					gbs(b, (x.in+x.out)*n)
				})
			}
		}
	}
}

// gbs reports the traffic of each pass of a benchmark.
func gbs(b *testing.B, bytes int) {
	b.ReportMetric(float64(bytes)*float64(b.N)/b.Elapsed().Seconds()/1e9, "GB/s")
	b.ReportMetric(0, "ns/op")
}
