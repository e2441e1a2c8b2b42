package nf4

import (
	"encoding/binary"
	"math"
)

// Assemble fills in all of a blob but the codes, which it ends with: for a tensor of
// that many elements that an Encoder gave that absmax and Double made dq of, nil
// without double quantization. It returns the header it wrote. The blob has the size
// that Sections says.
func (h Header) Assemble(blob []byte, elems int64, absmax []float32, dq *DoubleQuant) Header {
	h.Double, h.Offset = dq != nil, 0
	if dq != nil {
		h.Offset = dq.Offset
	}
	b := h.Append(blob[:0], elems)
	if dq == nil {
		appendFloats(b, absmax)
		return h
	}
	m := DynamicMap()
	b = appendFloats(b, m[:])
	b = appendFloats(b, dq.NestedAbsmax)
	copy(b[len(b):cap(b)], dq.Absmax)
	return h
}

func appendFloats(b []byte, x []float32) []byte {
	for _, v := range x {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
	}
	return b
}
