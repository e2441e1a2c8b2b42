package kernel

import (
	"encoding/binary"
	"math"
	"testing"
)

// FuzzQuantVariants compares the block formats of every variant with those of plain
// Go, bit by bit, on the float32 values that the input is.
func FuzzQuantVariants(f *testing.F) {
	seed := make([]byte, 4*200)
	for i := range len(seed) / 4 {
		binary.LittleEndian.PutUint32(seed[4*i:], math.Float32bits(float32(i)/100-1))
	}
	f.Add(seed, uint8(1))
	f.Add(make([]byte, 1024), uint8(0))
	f.Add(append(make([]byte, 252), 0, 0, 0xc0, 0x7f), uint8(2)) // a NaN
	m := map8()
	f.Fuzz(func(t *testing.T, b []byte, kind uint8) {
		x := make([]float32, len(b)/4)
		decodeF32Plain(x, b)
		block := 32 << (kind % 8)
		c := nf4Codebook
		if kind >= 128 {
			c = fp4Codebook
		}
		type result struct {
			done    int
			codes   []byte
			absmax  []float32
			moments []Moments4
			decoded []float32
			codes8  []byte
			values8 []float32
			top     uint32
		}
		run := func() (r result) {
			blocks := len(x) / block
			r.codes, r.absmax, r.moments = make([]byte, blocks*block/2), make([]float32, blocks), make([]Moments4, blocks)
			r.done = Encode4(r.codes, r.absmax, r.moments, x, block, c)
			r.codes, r.absmax, r.moments = r.codes[:r.done*block/2], r.absmax[:r.done], r.moments[:r.done]
			r.decoded = make([]float32, r.done*block)
			Decode4(r.decoded, r.codes, &c.Values, r.absmax, block)
			r.codes8 = make([]byte, len(x))
			Encode8(r.codes8, x, m, 1/float32(1+int(kind)))
			r.values8 = make([]float32, len(b))
			Decode8(r.values8, b, &m.Values, 3)
			r.top = bitsOf(Absmax(x))
			return r
		}
		with(t, &plain)
		want := run()
		for _, v := range variants() {
			with(t, v)
			got := run()
			switch {
			case want.done != got.done, want.top != got.top:
				t.Fatalf("%s: %d blocks, top %x; want %d, %x", v.name, got.done, got.top, want.done, want.top)
			case string(want.codes) != string(got.codes), string(want.codes8) != string(got.codes8):
				t.Fatalf("%s: codes differ", v.name)
			}
			requireBits(t, want.absmax, got.absmax, v.name)
			requireBits(t, want.decoded, got.decoded, v.name)
			requireBits(t, want.values8, got.values8, v.name)
			for i := range want.moments {
				w, g := want.moments[i], got.moments[i]
				requireBits(t, []float32{w.Err, w.Mixed, w.Square}, []float32{g.Err, g.Mixed, g.Square}, v.name)
			}
		}
	})
}

func decodeF32Plain(dst []float32, b []byte) {
	for i := range dst {
		dst[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
	}
}
