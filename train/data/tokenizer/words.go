package tokenizer

import (
	"fmt"
	"io"

	"github.com/seed18967229/nibble/formats/vocab/bpe"
	"github.com/seed18967229/nibble/tensor"
)

// maxHeld bounds the text that waits for a place where it may be split.
const maxHeld = 64 << 20

// words is the engine of vocabularies that a tokenizer.json describes.
type words struct{ t *bpe.Tokenizer }

func (w words) encode(text string, special bool) []int32 { return w.t.Encode(text, special) }

func (w words) offsets(text string, special bool) ([]int32, []int) {
	return w.t.EncodeOffsets(text, special)
}

func (w words) decoder() decoder { return w.t.NewStream(true) }

func (w words) read(r io.Reader, yield func(ids []int32) error) error {
	buf := make([]byte, streamChunk)
	n, done := 0, 0
	for {
		k, err := io.ReadFull(r, buf[n:])
		n += k
		last := err == io.EOF || err == io.ErrUnexpectedEOF
		if err != nil && !last {
			return err
		}
		end := n
		if !last {
			end = w.t.Cut(string(buf[:n]))
		}
		if end > 0 {
			if err := yield(w.t.Encode(string(buf[:end]), false)); err != nil {
				return err
			}
		}
		switch {
		case last:
			return nil
		case end > 0:
			done += end
			n = copy(buf, buf[end:n])
		case len(buf) >= maxHeld:
			return fmt.Errorf("%w: %d bytes of text behind offset %d without a place where it may be split", tensor.ErrUnsupported, n, done)
		default:
			buf = append(buf, make([]byte, len(buf))...)
		}
	}
}
