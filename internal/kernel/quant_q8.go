package kernel

import "encoding/binary"

// BlockQ8 and BytesQ8 are the elements and bytes of a block of Q8_0 (ggml-common.h,
// block_q8_0): a float16 scale and a signed byte for each element.
const (
	BlockQ8 = 32
	BytesQ8 = 2 + BlockQ8
)

// DecodeQ8 decodes whole blocks of Q8_0: each value is the byte times the scale,
// rounded once. len(dst) must be a multiple of BlockQ8.
func DecodeQ8(dst []float32, src []byte) {
	blocks := len(dst) / BlockQ8
	use.decodeQ8(dst[:blocks*BlockQ8], src[:blocks*BytesQ8])
}

func decodeQ8Go(dst []float32, src []byte) {
	for len(dst) > 0 {
		y, b := (*[BlockQ8]float32)(dst), (*[BytesQ8]byte)(src)
		d := F16ToF32(binary.LittleEndian.Uint16(b[:]))
		for i, q := range b[2:] {
			y[i] = float32(int8(q)) * d
		}
		dst, src = dst[len(y):], src[len(b):]
	}
}
