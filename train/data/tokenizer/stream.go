package tokenizer

import (
	"fmt"
	"io"
	"unicode/utf8"

	"github.com/seed18967229/nibble/tensor"
)

const (
	streamChunk = 64 << 10

	// maxStreamWord bounds the only thing that a stream keeps.
	maxStreamWord = 16 << 20
)

// EncodeReader passes the tokens of a text to yield, in order and in parts that
// are only valid during the call. They are those of Encode of the whole text.
// An error of yield ends it and is returned.
//
// A run of more than 16 MiB without a place where a word ends (such as that many
// spaces) is refused with an error that wraps tensor.ErrUnsupported.
func (t *Tokenizer) EncodeReader(r io.Reader, yield func(ids []int32) error) error {
	e := t.encoder()
	defer t.release(e)
	e.find = &t.added
	buf := make([]byte, max(streamChunk, 2*(t.added.longest()+utf8.UTFMax)))
	n := 0
	for last := false; !last; {
		var err error
		for n < len(buf) && err == nil {
			var k int
			k, err = r.Read(buf[n:])
			n += k
		}
		if last = err == io.EOF; err != nil && !last {
			return err
		}
		taken := e.write(string(buf[:n]), last)
		n = copy(buf, buf[taken:n])
		if len(e.word) > maxStreamWord {
			return fmt.Errorf("%w: %d bytes of text before offset %d without the end of a word", tensor.ErrUnsupported, len(e.word), e.pos)
		}
		if len(e.ids) == 0 {
			continue
		}
		if err := yield(e.ids); err != nil {
			return err
		}
		e.ids = e.ids[:0]
	}
	return nil
}
