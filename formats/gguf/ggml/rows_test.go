package ggml

import "math"

// The rows of encoded.json, as testdata/gen/ggml_encoded.py has them: every operation
// is on integers or rounded once.

// kindCols is the length of a row.
const kindCols = 512

// word is a word of splitmix64.
func word(seed uint64, i int) uint64 {
	z := seed + uint64(i+1)*0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// unit is evenly from -1 to 1, 24 bits.
func unit(w uint64) float32 { return float32(int64(w>>40)-1<<23) * 0x1p-23 }

// bell is nearly normal, from -4 to 4: the sum of the four parts of a word.
func bell(w uint64) float32 {
	return float32(int64(w&0xffff+w>>16&0xffff+w>>32&0xffff+w>>48)-2*65535) * 0x1p-15
}

func signed(w uint64, v float32) float32 {
	if w&1 == 1 {
		return -v
	}
	return v
}

func power(k int) float32 { return float32(math.Ldexp(1, k)) }

// kinds are what rows are of: value i of a row, of a word for it, w, and one for the
// row, r.
var kinds = []struct {
	name  string
	value func(w, r uint64, i int) float32
}{
	{"uniform", func(w, _ uint64, _ int) float32 { return unit(w) }},
	{"normal", func(w, _ uint64, _ int) float32 { return bell(w) }},
	{"heavy", func(w, _ uint64, _ int) float32 { return bell(w) / float32(unit(w*5)+(1+0x1p-16)) }},
	{"outlier", func(w, r uint64, i int) float32 {
		if i == int(r%kindCols) {
			return signed(^r>>32, 100)
		}
		return bell(w) * 0x1p-10
	}},
	{"constant", func(_, r uint64, _ int) float32 { return unit(r) }},
	{"signs", func(w, r uint64, _ int) float32 { return signed(w, unit(r)) }},
	{"zeros", func(w, _ uint64, _ int) float32 { return signed(w, 0) }},
	{"sparse", func(w, _ uint64, _ int) float32 {
		if w>>32&7 == 0 {
			return unit(w)
		}
		return signed(w, 0)
	}},
	{"steps", func(w, r uint64, _ int) float32 { return signed(w, float32(w>>8%19)) * power(int(r%9)-4) }},
	{"bits", func(w, _ uint64, _ int) float32 {
		b := uint32(w >> 32)
		if b&0x7f800000 == 0x7f800000 {
			b &= 0xbfffffff
		}
		return math.Float32frombits(b)
	}},
	{"subnormal", func(w, _ uint64, _ int) float32 { return math.Float32frombits(uint32(w>>32) & 0x807fffff) }},
	{"huge", func(w, _ uint64, _ int) float32 { return bell(w) * 1e30 }},
	{"largest", func(w, _ uint64, _ int) float32 { return bell(w) * 0x1p125 }},
	{"tiny", func(w, r uint64, _ int) float32 { return bell(w) * power(-49-int(r%4)) }},
	{"small", func(w, r uint64, _ int) float32 { return bell(w) * power(-14-int(r%14)) }},
	// The largest is a few units in the last place below a power of two, where a
	// logarithm is rounded up to it.
	{"below power", func(w, r uint64, i int) float32 {
		k := int(r%250) - 124
		if i%32 == 0 {
			return math.Float32frombits(uint32(k+127)<<23 - 1 - uint32(r>>32%64))
		}
		return unit(w) * power(k-2)
	}},
}

// kindRows returns n rows, of each kind in turn, the first being number first.
func kindRows(first, n int) []float32 {
	x := make([]float32, 0, n*kindCols)
	for row := first; row < first+n; row++ {
		r := word(1<<63, row)
		for i := range kindCols {
			x = append(x, kinds[row%len(kinds)].value(word(uint64(row)<<20, i), r, i))
		}
	}
	return x
}

// kindImportance is for the columns of such rows: squares, some of them large, some
// zero, a whole block too.
func kindImportance() []float32 {
	v := make([]float32, kindCols)
	for i := range v {
		w := word(1<<62, i)
		v[i] = bell(w) * bell(w)
		switch w & 15 {
		case 0:
			v[i] = 0
		case 1:
			v[i] *= 1e6
		}
	}
	clear(v[64:96])
	return v
}
