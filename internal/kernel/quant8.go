package kernel

// Map8 is an 8-bit code: 256 values in ascending order. A value gets the code of the
// nearest; one halfway between two, or a NaN, that of the lower.
type Map8 struct {
	// heap are the midpoints as a search tree: below node i are 2i, where it is not
	// exceeded, and 2i+1. Element 0 is not used.
	heap [256]float32

	// Values are those of the codes.
	Values [256]float32
}

// NewMap8 returns the Map8 of those values. A midpoint is (a+b)/2, rounded as two
// operations in float32.
func NewMap8(values [256]float32) *Map8 {
	m := &Map8{Values: values}
	var plant func(node, from, to int)
	plant = func(node, from, to int) {
		if node >= len(m.heap) {
			return
		}
		mid := (from + to) / 2
		m.heap[node] = float32(values[mid]+values[mid+1]) / 2
		plant(2*node, from, mid)
		plant(2*node+1, mid+1, to)
	}
	plant(1, 0, 255)
	return m
}

// Encode8 gives each element of x, multiplied by mul and rounded, its code. len(codes)
// must be len(x).
func Encode8(codes []byte, x []float32, m *Map8, mul float32) {
	use.encodeMap8(codes[:len(x)], x, m, mul)
}

func encodeMap8Go(codes []byte, x []float32, m *Map8, mul float32) {
	for i, v := range x {
		codes[i] = m.Code(v * mul)
	}
}

// Code returns the code of a value.
func (m *Map8) Code(s float32) uint8 {
	j := 1
	for range 8 {
		bit := 0
		if s > m.heap[uint8(j)] {
			bit = 1
		}
		j = 2*j + bit
	}
	return uint8(j)
}

// Decode8 sets dst[i] to the value of codes[i] times scale, rounded once. len(codes)
// must be len(dst).
func Decode8(dst []float32, codes []byte, values *[256]float32, scale float32) {
	use.decode8(dst, codes[:len(dst)], values, scale)
}

func decode8Go(dst []float32, codes []byte, values *[256]float32, scale float32) {
	for i, c := range codes {
		dst[i] = values[c] * scale
	}
}
