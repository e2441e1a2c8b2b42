package ggml

import (
	"encoding/binary"

	"github.com/seed18967229/nibble/internal/kernel"
)

// A K-quant is a super-block of 256 values in groups of 16 or 32. Each group gets a
// scale, and where its values need not lie around zero a low end, by a search in
// internal/kernel. The scales of a super-block are then quantized themselves, to
// multiples of its float16 d (and dmin), and the values once more, with what became
// of the scales.
//
// With importance the searches weigh other errors, and the multiples are searched for
// too.
const superBlock = 256

// lowEnded is a K-quant whose groups have a low end: Q2_K, Q4_K, Q5_K.
type lowEnded struct {
	bytes, d int // of a super-block, and where its d is: behind it is dmin
	size     int // of a group
	multiple int // the highest multiple of d and dmin
	plain    kernel.Range
	weighted kernel.Range

	// spread is what the mean square of a super-block counts in the weights.
	spread float32

	// putMultiples stores those of all groups, and multiples reads those of one.
	putMultiples func(b []byte, scales, lows *[kernel.FitGroups]byte)
	multiples    func(b []byte, group int) (scale, low byte)

	putCodes func(b []byte, codes *[superBlock]byte)
}

// encode stores super-blocks. If there is importance they are of rows of its length.
func (k *lowEnded) encode(dst []byte, src, importance []float32) {
	var f kernel.Fit
	var weights []float32
	cols := columns{importance: importance}
	groups := superBlock / k.size
	search, highest := &k.plain, (*lowEnded).byLargest
	if importance != nil {
		search, highest = &k.weighted, (*lowEnded).bySearch
		weights = make([]float32, kernel.FitGroups*k.size)
	}
	for len(src) > 0 {
		x := src[:min(len(src), kernel.FitGroups*k.size)]
		if importance != nil {
			weights = weights[:len(x)]
			for at := 0; at < len(x); at += superBlock {
				block := x[at : at+superBlock]
				kernel.Weigh(weights[at:at+superBlock], block, cols.take(superBlock), k.spread*sumOfSquares(block)/superBlock)
			}
		}
		kernel.FitRange(&f, x, weights, k.size, search)
		for at := 0; at < len(x); at += superBlock {
			b, block, first := dst[:k.bytes], x[at:at+superBlock], at/k.size
			if finite(block) {
				highest(k, b, &f, first, groups)
				k.round(b, block, &f, first, search.Levels)
			} else {
				spoil(b, k.d)
			}
			dst = dst[k.bytes:]
		}
		src = src[len(x):]
	}
}

// byLargest makes the largest scale the highest multiple, and the largest low end.
func (k *lowEnded) byLargest(b []byte, f *kernel.Fit, first, groups int) {
	top, topLow := highestOf(f.Scale[first:first+groups]), highestOf(f.Low[first:first+groups])
	perScale, perLow := k.perUnit(top), k.perUnit(topLow)
	var scales, lows [kernel.FitGroups]byte
	for g := range groups {
		scales[g] = byte(roundEven(float32(perScale * f.Scale[first+g])))
		lows[g] = byte(roundEven(float32(perLow * f.Low[first+g])))
	}
	k.put(b, top/float32(k.multiple), topLow/float32(k.multiple), &scales, &lows)
}

func (k *lowEnded) perUnit(top float32) float32 {
	if top > 0 {
		return float32(k.multiple) / top
	}
	return 0
}

// highestOf returns the largest of x above 0.
func highestOf(x []float32) float32 {
	var top float32
	for _, v := range x {
		if v > top {
			top = v
		}
	}
	return top
}

// bySearch looks for the multiples that err least, each group as heavy as its
// values.
func (k *lowEnded) bySearch(b []byte, f *kernel.Fit, first, groups int) {
	var scales, lows [kernel.FitGroups]byte
	end := first + groups
	d := fitPositive(scales[:groups], f.Scale[first:end], f.Weight[first:end], k.multiple)
	dmin := fitPositive(lows[:groups], f.Low[first:end], f.Weight[first:end], k.multiple)
	k.put(b, d, dmin, &scales, &lows)
}

func (k *lowEnded) put(b []byte, d, dmin float32, scales, lows *[kernel.FitGroups]byte) {
	putHalf(b[k.d:], d)
	putHalf(b[k.d+2:], dmin)
	k.putMultiples(b, scales, lows)
}

// round stores the codes of a super-block of which all else is stored.
func (k *lowEnded) round(b []byte, x []float32, f *kernel.Fit, first, levels int) {
	d, dmin := half(b[k.d:]), half(b[k.d+2:])
	var codes [superBlock]byte
	var scales, lows [kernel.FitGroups]float32
	groups := superBlock / k.size
	for g := range groups {
		scale, low := k.multiples(b, g)
		scales[g], lows[g] = d*float32(scale), dmin*float32(low)
		if scales[g] == 0 {
			part := x[g*k.size : (g+1)*k.size]
			kernel.RangeCodes(codes[g*k.size:], part, f.Inverse[first+g], f.Origin[first+g], levels)
		}
	}
	kernel.RoundRange(codes[:], x, scales[:groups], lows[:groups], k.size, levels)
	k.putCodes(b, &codes)
}

// aroundZero is a K-quant whose groups lie around zero: Q3_K, Q6_K.
type aroundZero struct {
	bytes, d int // of a super-block, and where its d is
	levels   int

	// fit finds the scales of the groups, the multiples of what they become, and what
	// that is. Of zeros alone it may return false: all bytes are zeros then.
	fit func(s *signedFit, x, importance []float32) (d float32, ok bool)

	// codes makes those of a group of which the scale became 0.
	codes func(codes []byte, x []float32, inverse float32)

	put func(b []byte, multiples *[kernel.FitGroups]int8, codes *[superBlock]byte)
}

type signedFit struct {
	kernel.Fit
	outer     kernel.Fit // of the scales
	multiples [kernel.FitGroups]int8
}

const signedSize = superBlock / kernel.FitGroups // of a group

// encode stores super-blocks. If there is importance they are of rows of its length.
func (k *aroundZero) encode(dst []byte, src, importance []float32) {
	var s signedFit
	cols := columns{importance: importance}
	for ; len(src) > 0; dst, src = dst[k.bytes:], src[superBlock:] {
		b, x := dst[:k.bytes], src[:superBlock]
		weights := cols.take(superBlock)
		if !finite(x) {
			spoil(b, k.d)
			continue
		}
		d, ok := k.fit(&s, x, weights)
		if !ok {
			clear(b)
			continue
		}
		putHalf(b[k.d:], d)
		d = half(b[k.d:])
		var codes [superBlock]byte
		var scales [kernel.FitGroups]float32
		for g, m := range s.multiples {
			scales[g] = d * float32(m)
			if scales[g] == 0 {
				k.codes(codes[g*signedSize:], x[g*signedSize:(g+1)*signedSize], s.Inverse[g])
			}
		}
		kernel.RoundSigned(codes[:], x, scales[:], signedSize, k.levels)
		k.put(b, &s.multiples, &codes)
	}
}

// furthest returns the scale of the largest magnitude, the first of equals, and 0 if
// there is none but zeros and NaN.
func furthest(x []float32) float32 {
	var top, v float32
	for _, e := range x {
		if a := abs(e); a > top {
			top, v = a, e
		}
	}
	return v
}

// ones has a one in each of eight bytes, and n times it n: codes are packed eight at
// a time, each of fewer bits than shifts would carry into the next.
const ones = 0x0101010101010101

func eight(b []byte) uint64 { return binary.LittleEndian.Uint64(b) }

func putEight(b []byte, v uint64) { binary.LittleEndian.PutUint64(b, v) }

// columns is where in its rows an importance matrix is.
type columns struct {
	importance []float32
	next       int
}

// take returns the importance of the next n values, which are within a row; nil if
// there is none.
func (c *columns) take(n int) []float32 {
	if c.importance == nil {
		return nil
	}
	part := c.importance[c.next : c.next+n]
	c.next = (c.next + n) % len(c.importance)
	return part
}

// spoil makes a block that decodes to NaN, all of it. d is where its scale is.
func spoil(b []byte, d int) {
	clear(b)
	binary.LittleEndian.PutUint16(b[d:], 0x7e00)
}
