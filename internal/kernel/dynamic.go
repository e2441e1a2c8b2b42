package kernel

import (
	"math"
	"slices"
	"sort"
	"sync"
)

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

// DynamicMap returns bitsandbytes' create_dynamic_map, to the last bit as torch makes it
// under AVX2 and AVX-512: for each decade from 1e-6 to 1 the middles of equal parts of it
// from a tenth on, twice as many as in the decade below; and 0 and 1. Signed ones have
// half as many, and their negatives. (torch 1.13 under AVX2 gives some values that differ
// in the last places. Readers use the map that is stored.)
func DynamicMap(signed bool) [256]float32 {
	if signed {
		return signedMap().values
	}
	return unsignedMap().values
}

func newDynamicMap(signed bool) *dynamicMap {
	d := &dynamicMap{}
	list := []float32{0, 1}
	for i := range 7 {
		parts := 2 << i
		if signed {
			parts = 1 << i
		}
		for k := range parts {
			middle := (boundary(k, parts) + boundary(k+1, parts)) / 2
			v := float32(math.Pow10(i-6)) * middle
			list = append(list, v)
			if signed {
				list = append(list, -v)
			}
		}
	}
	slices.Sort(list)
	copy(d.values[:], list)
	d.zero = uint8(slices.Index(list, 0))
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

// boundary is torch.linspace(0.1, 1, parts+1)[k]: the first half counts from the
// beginning and the second from the end, each rounded once.
func boundary(k, parts int) float32 {
	const start, end = float32(0.1), float32(1)
	step := float64((end - start) / float32(parts))
	if k < (parts+1)/2 {
		return float32(float64(start) + step*float64(k))
	}
	return float32(float64(end) - step*float64(parts-k))
}

// search returns the code of the value nearest to x by its definition.
func (d *dynamicMap) search(x float32) uint8 {
	return uint8(sort.Search(255, func(i int) bool { return d.bounds[i] >= x }))
}
