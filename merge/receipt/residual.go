package receipt

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"

	"github.com/seed18967229/nibble/internal/kernel"
	"github.com/seed18967229/nibble/tensor"
)

// precision is how finely numbers of a type lie: mantissa bits below the leading
// one, and the exponent, biased as float32 has it, below which they lie no finer.
type precision struct {
	mantissa int
	lowest   uint32

	// group is how many numbers share the exponent of the largest.
	group int
}

// A float is a type of numbers that can be predicted and corrected.
type float struct {
	precision
	size   int
	encode func(dst []byte, src []float32)
	value  func(bits uint32) float32
}

var floatTypes = map[tensor.DType]float{
	tensor.F32: {precision{23, 1, 1}, 4, kernel.EncodeF32, math.Float32frombits},
	tensor.F16: {precision{10, 113, 1}, 2, kernel.EncodeF16, func(b uint32) float32 { return kernel.F16ToF32(uint16(b)) }},
	tensor.BF16: {precision{7, 1, 1}, 2, kernel.EncodeBF16, func(b uint32) float32 {
		return math.Float32frombits(b << 16)
	}},
}

// precisionOf says of any type how finely values read from it were rounded. Of a
// block encoding that is a guess, which costs space if it is wrong.
func precisionOf(d tensor.DType) precision {
	if f, ok := floatTypes[d]; ok {
		return f.precision
	}
	if d == tensor.F64 {
		return precision{23, 1, 1}
	}
	if d == tensor.Q8_0 {
		return precision{6, 1, 32}
	}
	return precision{3, 1, 32}
}

// predictor foretells base values from merged ones.
type predictor struct {
	base   float
	merged precision
}

// predict makes of merged values m and their deltas d, in d, what the base's values
// were about, and stores them as the base's type in code. In m it leaves what their
// precision depends on.
func (p *predictor) predict(m, d []float32, code []byte) {
	kernel.Scale(d, -1)
	kernel.Add(d, m)
	p.base.encode(code, d)
	g := p.merged.group
	if g == 1 {
		return
	}
	for at := 0; at < len(m); at += g {
		part := m[at:min(len(m), at+g)]
		var largest float32
		for _, v := range part {
			largest = max(largest, float32(math.Abs(float64(v))))
		}
		for i := range part {
			part[i] = largest
		}
	}
}

// lost returns how many bits finer the base lies at the value b than what m was
// rounded to; negative if it is coarser.
func (p *predictor) lost(m, b float32) int {
	em := max(math.Float32bits(m)>>23&0xff, p.merged.lowest)
	eb := max(math.Float32bits(b)>>23&0xff, p.base.lowest)
	return int(em) - int(eb) + p.base.mantissa - p.merged.mantissa
}

// get and put read and write an element, ordinal makes of its bits a number that
// counts the values of the type in their order; it is its own inverse.
func (f *float) get(b []byte, i int) uint32 {
	if f.size == 2 {
		return uint32(binary.LittleEndian.Uint16(b[2*i:]))
	}
	return binary.LittleEndian.Uint32(b[4*i:])
}

func (f *float) put(b []byte, i int, v uint32) {
	if f.size == 2 {
		binary.LittleEndian.PutUint16(b[2*i:], uint16(v))
		return
	}
	binary.LittleEndian.PutUint32(b[4*i:], v)
}

func (f *float) ordinal(v uint32) int64 {
	if f.size == 2 {
		x := int16(v)
		return int64(x ^ x>>15&math.MaxInt16)
	}
	x := int32(v)
	return int64(x ^ x>>31&math.MaxInt32)
}

func (f *float) fromOrdinal(o int64) uint32 {
	if f.size == 2 {
		x := int16(o)
		return uint32(uint16(x ^ x>>15&math.MaxInt16))
	}
	x := int32(o)
	return uint32(x ^ x>>31&math.MaxInt32)
}

// above is 1 if the value that was rounded to the code lies above it: then of the
// values that it may have been, one more lies above the code than below.
func (f *float) above(v float32, code uint32) int64 {
	if v > f.value(code) {
		return 1
	}
	return 0
}

// need returns the bits that tell a correction r, k of them telling those from
// above-2^(k-1) to above+2^(k-1)-1 and none the correction 0.
func need(r, above int64) int {
	if r == 0 {
		return 0
	}
	x := r - above
	return 1 + bits.Len64(uint64(x^x>>63))
}

const (
	// exceptionBits is about what it costs to say where a correction is that its
	// bits cannot tell, and what it is.
	exceptionBits = 20

	maxSlack = 24
)

// exponent is where a float32 has its exponent.
const exponent = 0xff << 23

// skip returns the first element from i on of which something is lost, if the base
// lies as finely as what was merged.
func skip(m, v []float32, i int) int {
	v = v[:len(m)]
	for ; i < len(m); i++ {
		if math.Float32bits(m[i])&exponent > math.Float32bits(v[i])&exponent {
			break
		}
	}
	return i
}

// even reports whether skip is right.
func (p *predictor) even() bool {
	return p.base.mantissa == p.merged.mantissa && p.base.lowest == p.merged.lowest
}

// candidates returns the elements that are not plainly 0 bits of nothing lost: those of
// which something is, and those that are predicted wrong.
func (p *predictor) candidates(base, code []byte, m, v []float32) []int32 {
	list := make([]int32, 0, len(m)/8)
	if p.even() && p.base.size == 2 {
		base, code, v := base[:2*len(m)], code[:2*len(m)], v[:len(m)]
		for i := range m {
			if math.Float32bits(m[i])&exponent > math.Float32bits(v[i])&exponent || base[2*i] != code[2*i] || base[2*i+1] != code[2*i+1] {
				list = append(list, int32(i))
			}
		}
		return list
	}
	for i := range m {
		if p.lost(m[i], v[i]) > 0 || p.base.get(base, i) != p.base.get(code, i) {
			list = append(list, int32(i))
		}
	}
	return list
}

// encodeResidual appends what turns the prediction, code as stored and v as it was,
// into base. m is what predict left of the merged values.
//
// Each element takes as many bits as were lost, and slack more: 0 where the deltas
// are known, what they are large otherwise. Elements of which nearly all bits are
// lost are stored as they are. Corrections that do not fit are exceptions: the
// distance from the one before, and the correction.
func (p *predictor) encodeResidual(dst []byte, base, code []byte, m, v []float32) []byte {
	f := &p.base
	list := p.candidates(base, code, m, v)
	if len(list) == 0 {
		return append(dst, 0, 0, 0)
	}
	var excess [65]int
	excess[0] = len(m) - len(list)
	for _, i := range list {
		q, b := f.get(code, int(i)), f.get(base, int(i))
		n := need(f.ordinal(b)-f.ordinal(q), f.above(v[i], q))
		excess[max(0, n-max(0, p.lost(m[i], v[i])))]++
	}
	slack, best := 0, int64(math.MaxInt64)
	more := len(m)
	for s := range maxSlack + 1 {
		more -= excess[s]
		if cost := int64(s)*int64(len(m)) + exceptionBits*int64(more); cost < best {
			slack, best = s, cost
		}
	}
	var w bitWriter
	var exceptions []byte
	last := 0
	one := func(i int) {
		k := max(0, p.lost(m[i], v[i])) + slack
		q, b := f.get(code, i), f.get(base, i)
		if k > f.mantissa {
			w.write(uint64(b), 8*f.size)
			return
		}
		r, a := f.ordinal(b)-f.ordinal(q), f.above(v[i], q)
		x := uint64(0)
		if need(r, a) > k {
			exceptions = binary.AppendUvarint(exceptions, uint64(i-last))
			exceptions = binary.AppendVarint(exceptions, r)
			last = i
		} else if k > 0 {
			x = uint64(r - a + 1<<(k-1))
		}
		w.write(x, k)
	}
	if slack == 0 {
		for _, i := range list {
			one(int(i))
		}
	} else {
		for i := range m {
			one(i)
		}
	}
	dst = append(dst, byte(slack))
	dst = appendPacked(dst, exceptions)
	return append(dst, w.bytes()...)
}

// decodeResidual turns the prediction in code into the base's values.
func (p *predictor) decodeResidual(payload, code []byte, m, v []float32) error {
	if len(payload) == 0 {
		return errBlock("is empty")
	}
	f, slack := &p.base, int(payload[0])
	if slack > maxSlack {
		return errBlock("has %d bits of slack", slack)
	}
	exceptions, payload, err := packed(payload[1:], len(v)*2*binary.MaxVarintLen64)
	if err != nil {
		return err
	}
	r := bitReader{b: payload}
	next, correction := len(v), int64(0)
	advance := func(from int) error {
		if next = len(v); len(exceptions) == 0 {
			return nil
		}
		step, n := binary.Uvarint(exceptions)
		if n <= 0 || step >= uint64(len(v)-from) {
			return errBlock("has an exception that is nowhere")
		}
		c, k := binary.Varint(exceptions[n:])
		if k <= 0 {
			return errBlock("has half an exception")
		}
		next, correction, exceptions = from+int(step), c, exceptions[n+k:]
		return nil
	}
	if err := advance(0); err != nil {
		return err
	}
	fast := slack == 0 && p.even()
	for i := 0; i < len(v); i++ {
		if fast {
			if i = skip(m[:next], v, i); i == len(v) {
				break
			}
		}
		k := max(0, p.lost(m[i], v[i])) + slack
		if k == 0 && i != next {
			continue
		}
		if k > f.mantissa {
			x, ok := r.read(8 * f.size)
			if !ok {
				return errBlock("ends early")
			}
			f.put(code, i, uint32(x))
			continue
		}
		x, ok := r.read(k)
		if !ok {
			return errBlock("ends early")
		}
		q := f.get(code, i)
		c := int64(0)
		switch {
		case i == next:
			c = correction
			if err := advance(i); err != nil {
				return err
			}
			if next == i {
				return errBlock("has two exceptions of one element")
			}
		case k > 0:
			c = int64(x) + f.above(v[i], q) - 1<<(k-1)
		}
		f.put(code, i, f.fromOrdinal(f.ordinal(q)+c))
	}
	if next != len(v) || !r.done() {
		return errBlock("goes on after its last element")
	}
	return nil
}

// bitWriter packs bits, the lowest first.
type bitWriter struct {
	b   []byte
	acc uint64
	n   int
}

// write appends the lowest k bits of x, at most 32.
func (w *bitWriter) write(x uint64, k int) {
	w.acc |= x << w.n
	if w.n += k; w.n >= 32 {
		w.b = binary.LittleEndian.AppendUint32(w.b, uint32(w.acc))
		w.acc, w.n = w.acc>>32, w.n-32
	}
}

func (w *bitWriter) bytes() []byte {
	for ; w.n > 0; w.n -= 8 {
		w.b = append(w.b, byte(w.acc))
		w.acc >>= 8
	}
	w.n = 0
	return w.b
}

type bitReader struct {
	b   []byte
	acc uint64
	n   int
}

// read returns the next k bits, at most 32, and whether there are so many.
func (r *bitReader) read(k int) (uint64, bool) {
	if r.n < k {
		if len(r.b) >= 4 {
			r.acc |= uint64(binary.LittleEndian.Uint32(r.b)) << r.n
			r.b, r.n = r.b[4:], r.n+32
		} else {
			for ; len(r.b) > 0; r.b = r.b[1:] {
				r.acc |= uint64(r.b[0]) << r.n
				r.n += 8
			}
			if r.n < k {
				return 0, false
			}
		}
	}
	x := r.acc & (1<<k - 1)
	r.acc, r.n = r.acc>>k, r.n-k
	return x, true
}

// done reports whether nothing is left but what fills the last byte.
func (r *bitReader) done() bool { return len(r.b) == 0 && r.n < 8 && r.acc == 0 }

func errBlock(format string, args ...any) error {
	return fmt.Errorf("%w: a block %s", tensor.ErrMalformed, fmt.Sprintf(format, args...))
}
