package receipt

import (
	"encoding/binary"
	"hash/crc32"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// How a block is coded.
const (
	codedStored   = iota // as it is
	codedZstd            // the bytes, by zstd
	codedPlanes2         // of every 2 bytes first those and then those, by zstd
	codedPlanes4         // the same of every 4
	codedResidual        // corrections of a prediction
)

// frameSize is what stands before what is coded.
const frameSize = 4 + 1

// chunk is how many bytes of a literal are in a block.
const chunk = 1 << 20

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// frame returns a block.
func frame(how byte, coded []byte) []byte {
	b := make([]byte, frameSize, frameSize+len(coded))
	b[4] = how
	b = append(b, coded...)
	binary.LittleEndian.PutUint32(b, crc32.Checksum(b[4:], castagnoli))
	return b
}

// unframe checks a block and returns how it is coded, and what is.
func unframe(b []byte) (how byte, coded []byte, err error) {
	if len(b) < frameSize {
		return 0, nil, errBlock("has %d bytes", len(b))
	}
	if binary.LittleEndian.Uint32(b) != crc32.Checksum(b[4:], castagnoli) {
		return 0, nil, errBlock("is damaged: its CRC-32C is another")
	}
	return b[4], b[frameSize:], nil
}

// maxDecoded bounds what a decoder allocates for a frame, whatever that claims.
const maxDecoded = 64 << 20

var (
	encoder = sync.OnceValue(func() *zstd.Encoder {
		e, err := zstd.NewWriter(nil, zstd.WithEncoderCRC(false))
		if err != nil {
			panic(err) // the options are wrong
		}
		return e
	})
	decoder = sync.OnceValue(func() *zstd.Decoder {
		d, err := zstd.NewReader(nil, zstd.WithDecoderMaxMemory(maxDecoded), zstd.WithDecoderConcurrency(0))
		if err != nil {
			panic(err)
		}
		return d
	})
)

// unzstd decodes a frame of which there must be size bytes.
func unzstd(coded []byte, size int) ([]byte, error) {
	b, err := decoder().DecodeAll(coded, nil)
	if err != nil {
		return nil, errBlock("cannot be decoded: %v", err)
	}
	if len(b) != size {
		return nil, errBlock("has %d bytes, want %d", len(b), size)
	}
	return b, nil
}

// appendPacked appends bytes with their length, compressed if that is shorter.
func appendPacked(dst, b []byte) []byte {
	coded := b
	if len(b) > 32 {
		if z := encoder().EncodeAll(b, nil); len(z) < len(b) {
			coded = z
		}
	}
	dst = binary.AppendUvarint(dst, uint64(len(b)))
	dst = binary.AppendUvarint(dst, uint64(len(coded)))
	return append(dst, coded...)
}

// packed returns what appendPacked appended, at most limit bytes, and what follows.
func packed(b []byte, limit int) (out, rest []byte, err error) {
	size, n := binary.Uvarint(b)
	if n <= 0 || size > uint64(limit) {
		return nil, nil, errBlock("has a part of an impossible size")
	}
	b = b[n:]
	stored, n := binary.Uvarint(b)
	if n <= 0 || stored > size || stored > uint64(len(b)-n) {
		return nil, nil, errBlock("has a part of an impossible size")
	}
	b = b[n:]
	if out = b[:stored]; stored < size {
		if out, err = unzstd(out, int(size)); err != nil {
			return nil, nil, err
		}
	}
	return out, b[stored:], nil
}

// probe is how much of a literal is tried to find out what suits it.
const probe = 32 << 10

// encodeLiteral codes bytes of which nothing is known, whichever way is shortest.
func encodeLiteral(b []byte) (how byte, coded []byte) {
	head := b[:min(len(b), probe)]
	best := len(head)
	for _, try := range []byte{codedZstd, codedPlanes2, codedPlanes4} {
		if n := len(encoder().EncodeAll(planes(head, try), nil)); n < best {
			how, best = try, n
		}
	}
	if how != codedStored {
		if coded = encoder().EncodeAll(planes(b, how), nil); len(coded) < len(b) {
			return how, coded
		}
	}
	return codedStored, b
}

// decodeLiteral decodes into dst, which has the length that there must be.
func decodeLiteral(dst []byte, how byte, coded []byte) error {
	switch how {
	case codedStored:
		if len(coded) != len(dst) {
			return errBlock("has %d bytes, want %d", len(coded), len(dst))
		}
		copy(dst, coded)
		return nil
	case codedZstd, codedPlanes2, codedPlanes4:
		b, err := unzstd(coded, len(dst))
		if err != nil {
			return err
		}
		unplanes(dst, b, how)
		return nil
	}
	return errBlock("is coded in way %d, which this version does not know", how)
}

// widths are the bytes of an element that planes takes apart.
var widths = map[byte]int{codedZstd: 1, codedPlanes2: 2, codedPlanes4: 4}

// planes puts the bytes at like places of elements together; those of no whole
// element come last.
func planes(b []byte, how byte) []byte {
	width := widths[how]
	if width == 1 {
		return b
	}
	n := len(b) / width
	out := make([]byte, len(b))
	for p := range width {
		plane := out[p*n:][:n]
		for i := range plane {
			plane[i] = b[i*width+p]
		}
	}
	copy(out[n*width:], b[n*width:])
	return out
}

// unplanes undoes planes.
func unplanes(dst, b []byte, how byte) {
	width := widths[how]
	n := len(b) / width
	for p := range width {
		for i, v := range b[p*n:][:n] {
			dst[i*width+p] = v
		}
	}
	copy(dst[n*width:], b[n*width:])
}
