package unigram

import (
	"encoding/binary"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/seed18967229/nibble/tensor"
)

// Charsmap replaces sequences of characters by others. It is safe for concurrent
// use.
type Charsmap struct {
	units []uint32 // of the double array: darts-clone's
	texts string   // the replacements, each with a NUL behind it
	raw   []byte

	// plain are the bytes of ASCII that nothing is put in the place of, not even
	// together with another one behind them.
	plain [utf8.RuneSelf]bool
}

// maxText bounds what is put in the place of a character. The longest of NFKC has
// 33 bytes.
const maxText = 256

// The parts of a unit of the double array (https://github.com/s-yata/darts-clone):
// the byte that leads to it, whether a value is there, and where its children are. A
// value has the highest bit, and is where a text begins.
const (
	unitValue = 1 << 31
	unitLabel = unitValue | 0xff
	unitLeaf  = 1 << 8
	unitFar   = 1 << 9
)

// ParseCharsmap reads precompiled_charsmap: the number of bytes of the double
// array, it, and the texts. Errors wrap tensor.ErrMalformed, or tensor.ErrUnsupported for a
// text that would make a long one of every character.
func ParseCharsmap(b []byte) (*Charsmap, error) {
	if len(b) < 4 {
		return nil, fmt.Errorf("%w: precompiled_charsmap of %d bytes", tensor.ErrMalformed, len(b))
	}
	n := uint64(binary.LittleEndian.Uint32(b))
	if n%4 != 0 || n < 4 || n > uint64(len(b)-4) {
		return nil, fmt.Errorf("%w: precompiled_charsmap of %d bytes with a table of %d", tensor.ErrMalformed, len(b), n)
	}
	c := &Charsmap{units: make([]uint32, n/4), texts: string(b[4+n:]), raw: b}
	for i := range c.units {
		c.units[i] = binary.LittleEndian.Uint32(b[4+4*i:])
	}
	switch {
	case c.texts == "" || c.texts[len(c.texts)-1] != 0:
		return nil, fmt.Errorf("%w: the texts of precompiled_charsmap do not end with a NUL", tensor.ErrMalformed)
	case !utf8.ValidString(c.texts):
		return nil, fmt.Errorf("%w: the texts of precompiled_charsmap are not UTF-8", tensor.ErrMalformed)
	}
	for rest := c.texts; rest != ""; {
		n := strings.IndexByte(rest, 0)
		if n > maxText {
			return nil, fmt.Errorf("%w: a text of %d bytes in precompiled_charsmap; at most %d", tensor.ErrUnsupported, n, maxText)
		}
		rest = rest[n+1:]
	}
	for a := range byte(utf8.RuneSelf) {
		c.plain[a] = a != 0 && c.inert(a)
	}
	return c, nil
}

// inert reports whether no rule begins with a byte of ASCII alone or with two.
func (c *Charsmap) inert(a byte) bool {
	at, _, leaf, ok := c.step(c.root(), a)
	if !ok {
		return true
	}
	for b := range byte(utf8.RuneSelf) {
		if _, _, _, ok := c.step(at, b); ok && b != 0 {
			return false
		}
	}
	return !leaf
}

// Raw returns what the Charsmap was made of.
func (c *Charsmap) Raw() []byte { return c.raw }

// Plain reports whether nothing is put in the place of a character of ASCII with
// another one behind it.
func (c *Charsmap) Plain(b byte) bool { return b < utf8.RuneSelf && c.plain[b] }

// offset is how far the children of a unit are from it.
func offset(unit uint32) uint32 { return unit >> 10 << (unit & unitFar >> 6) }

func (c *Charsmap) root() uint32 { return offset(c.units[0]) }

// step follows a byte from a place: to where the next ones go on and, if leaf, to
// the text for what came so far.
func (c *Charsmap) step(at uint32, b byte) (next, text uint32, leaf, ok bool) {
	at ^= uint32(b)
	if b == 0 || uint64(at) >= uint64(len(c.units)) || c.units[at]&unitLabel != uint32(b) {
		return 0, 0, false, false
	}
	unit := c.units[at]
	next = at ^ offset(unit)
	if unit&unitLeaf == 0 {
		return next, 0, false, true
	}
	if uint64(next) >= uint64(len(c.units)) {
		return next, 0, false, true
	}
	text = c.units[next] &^ unitValue
	return next, text, uint64(text) < uint64(len(c.texts)), true
}

func (c *Charsmap) text(at uint32) string {
	s := c.texts[at:]
	return s[:strings.IndexByte(s, 0)]
}

// Longest returns what is put in the place of the longest sequence that s begins
// with, and its length, 0 if there is none. More says that a longer one could
// follow if s went on.
func (c *Charsmap) Longest(s string) (with string, n int, more bool) {
	at, text := c.root(), uint32(0)
	for i := range len(s) {
		next, t, leaf, ok := c.step(at, s[i])
		if !ok {
			return c.found(text, n), n, false
		}
		if leaf {
			text, n = t, i+1
		}
		at = next
	}
	return c.found(text, n), n, true
}

func (c *Charsmap) found(text uint32, n int) string {
	if n == 0 {
		return ""
	}
	return c.text(text)
}

// Shortest returns what is put in the place of the shortest sequence that s begins
// with.
func (c *Charsmap) Shortest(s string) (with string, ok bool) {
	at := c.root()
	for i := range len(s) {
		next, text, leaf, ok := c.step(at, s[i])
		if !ok {
			break
		}
		if leaf {
			return c.text(text), true
		}
		at = next
	}
	return "", false
}
