package parquet

import (
	"encoding/binary"
	"fmt"

	"github.com/seed18967229/nibble/tensor"
)

// errValues is a page with fewer values in it than it says.
var errValues = fmt.Errorf("%w: the page ends before its values do", tensor.ErrMalformed)

// hybrid reads numbers of a few bits that are packed, or said once with how often
// they repeat.
type hybrid struct {
	b      []byte
	width  int
	value  uint32
	repeat uint64 // how often value is still due
	packed []byte
	at     int // the next bit of packed
	left   uint64
}

func (h *hybrid) next() (uint32, error) {
	for h.repeat == 0 && h.left == 0 {
		if err := h.run(); err != nil {
			return 0, err
		}
	}
	if h.repeat > 0 {
		h.repeat--
		return h.value, nil
	}
	if h.at+h.width > 8*len(h.packed) {
		return 0, errValues
	}
	v := uint32(unpack(h.packed, h.at, h.width))
	h.at += h.width
	h.left--
	return v, nil
}

// run begins the next run.
func (h *hybrid) run() error {
	if len(h.b) == 0 {
		return errValues
	}
	head, rest, err := uvarint(h.b)
	if err != nil {
		return errValues
	}
	h.b = rest
	if head&1 == 0 {
		n := (h.width + 7) / 8
		if n > len(h.b) {
			return errValues
		}
		h.value, h.repeat = uint32(little(h.b[:n])), head>>1
		h.b = h.b[n:]
		return nil
	}
	groups := head >> 1
	if groups > 1<<32 {
		return errValues
	}
	// The last run may be cut off where its values end.
	n := min(groups*uint64(h.width), uint64(len(h.b)))
	h.packed, h.b, h.at, h.left = h.b[:n], h.b[n:], 0, groups*8
	return nil
}

// little returns a number of up to 8 bytes.
func little(b []byte) uint64 {
	var v uint64
	for i, c := range b {
		v |= uint64(c) << (8 * i)
	}
	return v
}

// unpack returns the width bits, at most 64, that begin at bit at; they are in b.
func unpack(b []byte, at, width int) uint64 {
	b, shift := b[at/8:], at%8
	if len(b) >= 8 && shift+width <= 64 {
		return binary.LittleEndian.Uint64(b) >> shift & (1<<width - 1)
	}
	v := little(b[:min(8, (shift+width+7)/8)]) >> shift
	if shift+width > 64 {
		v |= uint64(b[8]) << (64 - shift)
	}
	return v & (1<<width - 1)
}
