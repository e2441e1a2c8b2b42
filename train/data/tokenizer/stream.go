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

func (t *spm) read(r io.Reader, yield func(ids []int32) error) error {
	e := t.encoder(false)
	defer t.release(e)
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
