package receipt

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"github.com/seed18967229/nibble/nf4"
	"github.com/seed18967229/nibble/tensor"
)

// A coder says of a panel of rows how its stored bytes differ from what the merged
// values, m, and their deltas, d, foretell. It may write over both.
type coder interface {
	// size returns the bytes of that many elements.
	size(elems int64) int64

	// unit returns what the elements of a panel must be a multiple of.
	unit() int64

	// exact says that the deltas are known, up to rounding.
	encode(base []byte, m, d []float32, cols int, exact bool) (how byte, coded []byte, err error)
	decode(dst []byte, how byte, coded []byte, m, d []float32, cols int) error
}

// Besides the ways of literals and codedResidual.
const (
	codedCodes  = codedResidual + 1 + iota
	codedScaled // what each row is multiplied by, and corrections
)

// newCoder returns the coder of a base tensor of a type, in blocks of a size if it
// has such, given the type of the merged one. It returns nil if the bytes of the
// type cannot be told from values.
func newCoder(base tensor.DType, block int64, merged tensor.DType) coder {
	if f, ok := floatTypes[base]; ok {
		return &floatCoder{predictor{f, precisionOf(merged)}}
	}
	switch base {
	case tensor.NF4, tensor.FP4:
		if nf4.CheckBlockSize(block) == nil {
			return fourBits{base, block}
		}
	case tensor.INT8:
		return eightBits{}
	}
	return nil
}

// panelElems is about how many elements a block of a tensor has.
const panelElems = 1 << 18

// panelRows returns the rows of a block. Of all blocks but the last, the elements
// are a multiple of the coder's unit.
func panelRows(c coder, rows, cols int64) int64 {
	if cols == 0 {
		return max(1, rows)
	}
	n := max(1, panelElems/cols)
	for step := c.unit() / gcd(c.unit(), cols); n%step != 0; n++ {
	}
	return max(1, min(n, rows))
}

func gcd(a, b int64) int64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// floatCoder is for numbers of a floating-point type.
type floatCoder struct{ predictor }

func (c *floatCoder) size(elems int64) int64 { return elems * int64(c.base.size) }

func (c *floatCoder) unit() int64 { return 1 }

func (c *floatCoder) encode(base []byte, m, d []float32, cols int, exact bool) (byte, []byte, error) {
	code := make([]byte, len(base))
	var scaled []byte
	if !exact {
		scaled = c.encodeScaled(base, code, slices.Clone(m), slices.Clone(d), cols)
	}
	c.predict(m, d, code)
	how, coded := byte(codedResidual), c.encodeResidual(nil, base, code, m, d)
	if !exact && len(scaled) < len(coded) {
		how, coded = codedScaled, scaled
	}
	if len(coded) < len(base)/2 {
		return how, coded, nil
	}
	if how, literal := encodeLiteral(base); len(literal) < len(coded) {
		return how, literal, nil
	}
	return how, coded, nil
}

// encodeScaled is for rows that were scaled after the deltas were added, as DoRA does
// it: it finds the factor by which each row comes closest to what it was.
func (c *floatCoder) encodeScaled(base, code []byte, m, d []float32, cols int) []byte {
	var gains []byte
	for at := 0; at < len(m); at += cols {
		var dot, square float64
		for i, v := range m[at : at+cols] {
			dot += float64(v) * (float64(c.base.value(c.base.get(base, at+i))) + float64(d[at+i]))
			square += float64(v) * float64(v)
		}
		gain := float32(dot / square)
		if gain-gain != 0 {
			gain = 1
		}
		gains = binary.LittleEndian.AppendUint32(gains, math.Float32bits(gain))
	}
	c.scale(gains, m, d, cols)
	c.predict(m, d, code)
	return c.encodeResidual(gains, base, code, m, d)
}

// scale changes the deltas so that they lead from the merged values to what was there
// before the rows were scaled: m - d is then gain * m less the delta.
func (c *floatCoder) scale(gains []byte, m, d []float32, cols int) {
	for row := range len(gains) / 4 {
		gain := math.Float32frombits(binary.LittleEndian.Uint32(gains[4*row:]))
		for i := row * cols; i < (row+1)*cols; i++ {
			d[i] += m[i] - float32(gain*m[i])
		}
	}
}

func (c *floatCoder) decode(dst []byte, how byte, coded []byte, m, d []float32, cols int) error {
	switch how {
	case codedScaled:
		n := 4 * (len(m) / cols)
		if len(coded) < n {
			return errBlock("ends early")
		}
		c.scale(coded[:n], m, d, cols)
		coded = coded[n:]
	case codedResidual:
	default:
		return decodeLiteral(dst, how, coded)
	}
	c.predict(m, d, dst)
	return c.decodeResidual(coded, dst, m, d)
}

// fourBits is for the codes of NF4 and FP4, whose scales are told from the largest
// value of a block: one of its codes always stands for 1 or -1.
type fourBits struct {
	dtype tensor.DType
	block int64
}

func (c fourBits) size(elems int64) int64 { return elems/2 + elems%2 }

func (c fourBits) unit() int64 { return c.block }

func (c fourBits) predict(m, d []float32) ([]byte, error) {
	base := m
	for i, v := range d {
		if base[i] -= v; base[i]-base[i] != 0 {
			base[i] = 0
		}
	}
	e, err := nf4.NewEncoder(c.dtype, int(c.block), int64(len(base)))
	if err != nil {
		return nil, err
	}
	code, err := e.Append(make([]byte, 0, c.size(int64(len(base)))), base)
	if err != nil {
		return nil, err
	}
	return e.Finish(code)
}

func (c fourBits) encode(base []byte, m, d []float32, _ int, _ bool) (byte, []byte, error) {
	code, err := c.predict(m, d)
	if err != nil {
		return 0, nil, err
	}
	for i, b := range base {
		code[i] = addNibbles(b, -code[i]&0xf|(-(code[i]&0xf0))&0xf0)
	}
	return codes(base, code)
}

func (c fourBits) decode(dst []byte, how byte, coded []byte, m, d []float32, _ int) error {
	if how != codedCodes {
		return decodeLiteral(dst, how, coded)
	}
	code, err := c.predict(m, d)
	if err != nil {
		return err
	}
	step, err := unzstd(coded, len(dst))
	if err != nil {
		return err
	}
	for i := range dst {
		dst[i] = addNibbles(code[i], step[i])
	}
	return nil
}

// addNibbles adds the halves of bytes.
func addNibbles(a, b byte) byte { return (a&0xf0+b&0xf0)&0xf0 | (a+b)&0xf }

// eightBits is for the codes of LLM.int8, whose scales are told from the largest
// value of a row: its code is 127 or -127.
type eightBits struct{}

func (eightBits) size(elems int64) int64 { return elems }

func (eightBits) unit() int64 { return 1 }

func (eightBits) predict(m, d []float32, cols int) []byte {
	code := make([]byte, len(m))
	for at := 0; at < len(m); at += cols {
		row := m[at : at+cols]
		var largest float32
		for i, v := range d[at : at+cols] {
			row[i] -= v
			largest = max(largest, row[i], -row[i])
		}
		if !(largest > 0) {
			continue
		}
		scale := 127 / largest
		for i, v := range row {
			code[at+i] = byte(int8(max(-127, min(127, math.RoundToEven(float64(float32(v*scale)))))))
		}
	}
	return code
}

func (c eightBits) encode(base []byte, m, d []float32, cols int, _ bool) (byte, []byte, error) {
	code := c.predict(m, d, cols)
	for i, b := range base {
		code[i] = b - code[i]
	}
	return codes(base, code)
}

func (c eightBits) decode(dst []byte, how byte, coded []byte, m, d []float32, cols int) error {
	if how != codedCodes {
		return decodeLiteral(dst, how, coded)
	}
	code := c.predict(m, d, cols)
	step, err := unzstd(coded, len(dst))
	if err != nil {
		return err
	}
	for i := range dst {
		dst[i] = code[i] + step[i]
	}
	return nil
}

// codes codes the differences of codes from their predictions, or the codes if that
// is shorter.
func codes(base, differences []byte) (byte, []byte, error) {
	coded := encoder().EncodeAll(differences, nil)
	if len(coded) < len(base)/2 {
		return codedCodes, coded, nil
	}
	if how, literal := encodeLiteral(base); len(literal) <= len(coded) {
		return how, literal, nil
	}
	return codedCodes, coded, nil
}

// coderOf is newCoder for what a manifest names.
func coderOf(base string, block int64, merged string) (coder, error) {
	b, err := tensor.ParseDType(base)
	if err != nil {
		return nil, err
	}
	m, err := tensor.ParseDType(merged)
	if err != nil {
		return nil, err
	}
	c := newCoder(b, block, m)
	if c == nil {
		return nil, fmt.Errorf("%w: a base tensor of %s is not told from values", tensor.ErrUnsupported, base)
	}
	return c, nil
}
