package kernel

import (
	"math"
	"sort"
	"sync"
)

// block8 is how many moments share a scale.
const block8 = 256

// Moments8 are the moments of AdamW8 for n weights: a byte for each, and the greatest
// magnitude of each block of 256 in float32, the last block being shorter. A moment is
// the value of its code times the scale of its block.
type Moments8 struct {
	M, V           []uint8
	MScale, VScale []float32
}

// Moments8Blocks returns the number of scales of n moments.
func Moments8Blocks(n int64) int64 { return (n + block8 - 1) / block8 }

// NewMoments8 returns moments that are 0: every byte and scale is.
func NewMoments8(n int) *Moments8 {
	blocks := Moments8Blocks(int64(n))
	return &Moments8{make([]uint8, n), make([]uint8, n), make([]float32, blocks), make([]float32, blocks)}
}

// Decode writes the moments of the weights from the given one on, which begins a
// block, to m and v, which have one length.
func (s *Moments8) Decode(m, v []float32, from int) {
	for at := 0; at < len(m); at += block8 {
		end := min(len(m), at+block8)
		b := (from + at) / block8
		Decode8(m[at:end], s.M[from+at:from+end], &signedMap().values, s.MScale[b])
		Decode8(v[at:end], s.V[from+at:from+end], &unsignedMap().values, s.VScale[b])
	}
}

// AdamW8 is AdamW with its moments in 8 bits between the steps (Dettmers et al., 2022,
// "8-bit Optimizers via Block-wise Quantization"): they are decoded, take part in a
// step of AdamW, and are rounded to the nearest code again. The weights change by the
// moments before these are rounded. All variants give the same bits.
//
// That is the arithmetic of bitsandbytes' portable backends. Its CUDA kernel decays
// the weights after the step and not before it, and moves a small negative first
// moment that would round to 0 to the code below. bitsandbytes keeps tensors of fewer
// than 4096 elements in float32; that is left to the caller.
type AdamW8 struct{ AdamW }

// Update changes the weights w and their moments by the gradient g. A block with a
// moment that is infinite or NaN has NaN for all of them from then on.
func (a AdamW8) Update(w []float32, s *Moments8, g []float32) {
	c := a.constants()
	const group = 16 * block8
	n := len(w)
	Parallel((n+group-1)/group, int64(n)*32, func(i int) {
		buf := scratch(2 * block8)
		defer release(buf)
		for at := i * group; at < min(n, (i+1)*group); at += block8 {
			end, b := min(n, at+block8), at/block8
			m, v := (*buf)[:end-at], (*buf)[block8:][:end-at]
			Decode8(m, s.M[at:end], &signedMap().values, s.MScale[b])
			Decode8(v, s.V[at:end], &unsignedMap().values, s.VScale[b])
			use.adamW(w[at:end], m, v, g[at:end], &c)
			s.MScale[b] = encodeBlock8(s.M[at:end], m, signedMap())
			s.VScale[b] = encodeBlock8(s.V[at:end], v, unsignedMap())
		}
	})
}

// encodeBlock8 rounds a block and returns its scale.
func encodeBlock8(codes []uint8, x []float32, d *dynamicMap) float32 {
	top := use.magnitude(x)
	if top > 0 && top <= math.MaxFloat32 {
		use.encode8(codes, x, d, top)
		return top
	}
	for i := range codes {
		codes[i] = d.zero
	}
	return top
}

// dynamicMap is a dynamic 8-bit number type (Dettmers, 2015): its values in ascending
// order, of which one is 0, and what finds the nearest.
type dynamicMap struct {
	values [256]float32
	zero   uint8

	// bounds are midway between a value and the next; the last is Inf. What is on a
	// bound belongs to the value below.
	bounds [256]float32

	// first has the lowest code there is among the numbers that agree in their sign and
	// the upper bits of their magnitude; none of them is more than one code above. The
	// loops read 4 bytes at a time.
	first [2*mapKeys + 3]uint8
}

const (
	// keyShift takes away the bits in which numbers with one key differ.
	keyShift = 16
	// firstKey is the key of 2^-22, which all below have as well: no more than one bound
	// is there.
	firstKey = (127 - 22) << 23 >> keyShift
	// mapKeys is the number of keys of each sign, up to that of 1.
	mapKeys = 127<<23>>keyShift - firstKey + 1
)

func key8(x float32) int {
	b := math.Float32bits(x)
	k := min(max(int(b&0x7fffffff)>>keyShift, firstKey), firstKey+mapKeys-1) - firstKey
	return k + int(b>>31)*mapKeys
}

var (
	signedMap   = sync.OnceValue(func() *dynamicMap { return newDynamicMap(true) })
	unsignedMap = sync.OnceValue(func() *dynamicMap { return newDynamicMap(false) })
)

// newDynamicMap makes bitsandbytes' create_dynamic_map: for each decade from 1e-6 to 1
// the middles of equal parts of it from a tenth on, twice as many as in the decade
// below; and 0 and 1. Signed ones have half as many, and their negatives. torch makes
// the boundaries in float32, so that its values may differ in their last places.
func newDynamicMap(signed bool) *dynamicMap {
	d := &dynamicMap{}
	list := []float64{0, 1}
	for i := range 7 {
		parts := 2 << i
		if signed {
			parts = 1 << i
		}
		for k := range parts {
			v := math.Pow10(i-6) * (0.1 + 0.9*(float64(k)+0.5)/float64(parts))
			list = append(list, v)
			if signed {
				list = append(list, -v)
			}
		}
	}
	sort.Float64s(list)
	for i, v := range list {
		d.values[i] = float32(v)
	}
	d.zero = uint8(sort.SearchFloat64s(list, 0))
	for i := range 255 {
		d.bounds[i] = float32((float64(d.values[i]) + float64(d.values[i+1])) / 2)
	}
	d.bounds[255] = float32(math.Inf(1))
	for k := range mapKeys {
		least := math.Float32frombits(uint32(k+firstKey) << keyShift)
		if k == 0 {
			least = 0
		}
		most := math.Float32frombits(uint32(k+firstKey+1)<<keyShift - 1)
		d.first[k] = d.search(least)
		d.first[mapKeys+k] = d.search(-most)
	}
	return d
}

// search returns the code of the value nearest to x by its definition.
func (d *dynamicMap) search(x float32) uint8 {
	return uint8(sort.Search(255, func(i int) bool { return d.bounds[i] >= x }))
}

// encode8Go writes the codes of x/top, which are from -1 to 1.
func encode8Go(codes []uint8, x []float32, d *dynamicMap, top float32) {
	for i, v := range x {
		v /= top
		c := d.first[key8(v)]
		if v > d.bounds[c] {
			c++
		}
		codes[i] = c
	}
}

// magnitudeGo returns the greatest magnitude. It compares bits, in whose order NaN is
// above Inf.
func magnitudeGo(x []float32) float32 {
	var top uint32
	for _, v := range x {
		top = max(top, math.Float32bits(v)&0x7fffffff)
	}
	return math.Float32frombits(top)
}
