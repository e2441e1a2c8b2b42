package tokenizer

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/seed18967229/nibble/formats/vocab/unigram"
	"github.com/seed18967229/nibble/internal/heap"
)

const (
	// maxWord bounds a word in memory: positions in it are counted in 32 bits.
	// A longer run of characters that could all be joined is cut there.
	maxWord = 1 << 30

	// Words of up to maxCachedWord bytes are remembered, maxCached of them.
	maxCachedWord = 48
	maxCached     = 1 << 15

	// maxPooled bounds the buffers that are kept between texts.
	maxPooled = 1 << 18
)

// encoder is the state of splitting one text, which may come in parts.
type encoder struct {
	t     *spm
	find  *matcher // tokens to take out of the text first
	track bool     // keep ends

	ids  []int32
	ends []int // of each id, if track

	// The text between two tokens that are taken out of it.
	prefix  bool  // the next character comes after a space put in front
	begun   bool  // there has been a character
	spaced  bool  // the last one was a space, when extra ones are removed
	held    []int // spaces that are only kept if something follows: their ends
	unknown bool  // the last token is the Unknown piece
	strip   bool  // white space that comes next belongs to the last token

	word     []byte // characters that may be joined
	wordEnds []int  // of each byte, if track
	last     rune   // the last character of word
	pos      int    // how much of the text is before what is written now

	symbols []symbol
	queue   heap.Queue[pair]
	lattice *unigram.Lattice // of a model of probabilities
	cache   map[string]cachedWord
	within  bool // ends are counted in the word
}

// cachedWord are the tokens of a short word, and where each ends in it.
type cachedWord struct {
	ids  []int32
	ends []uint8
}

func (e *encoder) reset() {
	*e = encoder{
		t: e.t, ids: e.ids[:0], ends: e.ends[:0], held: e.held[:0], word: e.word[:0], wordEnds: e.wordEnds[:0],
		symbols: e.symbols[:0], queue: e.queue[:0], lattice: e.lattice, cache: e.cache,
		prefix: e.t.v.AddSpacePrefix,
	}
}

// shrink lets go of what a long text needed.
func (e *encoder) shrink() {
	if cap(e.ids) > maxPooled {
		e.ids, e.ends = nil, nil
	}
	if cap(e.word) > maxPooled {
		e.word, e.wordEnds, e.symbols, e.queue = nil, nil, nil, nil
	}
	if e.lattice != nil {
		e.lattice.Shrink(maxPooled)
	}
}

// write splits text, a part of the whole. If it is not the last part, a rest
// that cannot be decided on yet is left; write returns how much of text it took.
func (e *encoder) write(text string, last bool) int {
	done := 0
	for {
		if e.strip {
			done += e.stripped(text[done:], last)
		}
		if e.strip {
			break // nothing else is there yet
		}
		start, id, n := e.next(text[done:], last)
		part := text[done : done+start]
		if n > 0 && e.t.v.Pieces[id].LStrip {
			part = strings.TrimRightFunc(part, unicode.IsSpace)
		}
		taken := e.text(part, e.pos+done, last || n > 0)
		if n == 0 {
			done += taken
			break
		}
		done += start + n
		e.finish()
		e.take(id, e.pos+done)
		e.strip = e.t.v.Pieces[id].RStrip
	}
	e.pos += done
	if last {
		e.finish()
	}
	return done
}

// stripped returns how much white space text starts with. If all of it is, more may
// follow.
func (e *encoder) stripped(text string, last bool) int {
	rest := strings.TrimLeftFunc(text, unicode.IsSpace)
	e.strip = !last && !utf8.FullRuneInString(rest)
	return len(text) - len(rest)
}

// next returns where the first token that is taken out of the text starts, and
// its length. If that is 0 there is none in the text before start.
func (e *encoder) next(text string, last bool) (start int, id int32, n int) {
	longest := e.find.longest()
	if longest == 0 {
		return len(text), 0, 0
	}
	for i := range len(text) {
		if !e.find.first[text[i]] {
			continue
		}
		if !last && len(text)-i < longest {
			return i, 0, 0
		}
		if id, n := e.find.match(text[i:]); n > 0 {
			return i, id, n
		}
	}
	return len(text), 0, 0
}

// take adds a token that was taken out of the text.
func (e *encoder) take(id int32, end int) {
	e.unknown = false
	e.add(id, end)
	e.unknown = false // even if it is the Unknown piece: the text after it is new
	e.prefix = e.t.v.AddSpacePrefix && e.t.v.Legacy
}

// text adds the characters of s, which starts at pos of the whole. If more of
// the text follows, an incomplete character at the end is left. It returns how
// much of s it took.
func (e *encoder) text(s string, pos int, whole bool) int {
	if e.t.charsmap != nil {
		return e.mapped(s, pos, whole)
	}
	i := 0
	for i < len(s) {
		r, n := rune(s[i]), 1
		if r >= utf8.RuneSelf {
			if !whole && !utf8.FullRuneInString(s[i:]) {
				break
			}
			r, n = utf8.DecodeRuneInString(s[i:]) // U+FFFD of length 1 if invalid
		}
		i += n
		e.char(r, pos+i, n)
	}
	return i
}

// mapped does the same where characters are replaced by a table: the longest
// sequence of it first, but for user-defined pieces.
func (e *encoder) mapped(s string, pos int, whole bool) int {
	i := 0
	for i < len(s) {
		if i+1 < len(s) && s[i+1] < utf8.RuneSelf && e.t.charsmap.Plain(s[i]) && !e.t.fixed.first[s[i]] {
			i++
			e.char(rune(s[i-1]), pos+i, 1)
			continue
		}
		if !whole && len(s)-i < max(utf8.UTFMax, e.t.fixed.longest()) {
			break
		}
		with, n, more := "", 0, false
		if _, n = e.t.fixed.match(s[i:]); n > 0 {
			with = s[i : i+n]
		} else if with, n, more = e.t.charsmap.Longest(s[i:]); more && !whole {
			break
		}
		if n == 0 {
			r, size := utf8.DecodeRuneInString(s[i:])
			i += size
			e.char(r, pos+i, size)
			continue
		}
		i += n
		if with == "" {
			e.begin(pos+i, n)
		}
		for _, r := range with {
			e.char(r, pos+i, n)
		}
	}
	return i
}

// begin puts a space in front of the text if there has been nothing of it yet.
func (e *encoder) begin(end, size int) {
	if e.begun {
		return
	}
	e.begun = true
	e.spaced = e.t.v.RemoveExtraWhitespaces
	if e.prefix {
		e.put(e.t.space, end-size)
	}
	e.prefix = false
}

// char normalizes one character, of size bytes in the text, that ends at end.
func (e *encoder) char(r rune, end, size int) {
	remove := e.t.v.RemoveExtraWhitespaces
	if !e.begun {
		if remove && r == ' ' {
			return
		}
		e.begin(end, size)
	}
	if r == ' ' {
		if remove && e.spaced {
			return
		}
		e.spaced = remove
		r = e.t.space
	} else {
		e.spaced = false
	}
	e.put(r, end)
}

// put adds one character of normalized text. When extra spaces are removed,
// spaces wait for what comes after them.
func (e *encoder) put(r rune, end int) {
	if e.t.v.RemoveExtraWhitespaces {
		if r == e.t.space {
			e.held = append(e.held, end)
			return
		}
		for _, end := range e.held {
			e.join(e.t.space, end)
		}
		e.held = e.held[:0]
	}
	e.join(r, end)
}

// join adds a character to the word, or starts the next word with it.
func (e *encoder) join(r rune, end int) {
	if len(e.word) > 0 && (!e.t.joins.has(e.last, r) || len(e.word) >= maxWord) {
		e.flush()
	}
	e.word = utf8.AppendRune(e.word, r)
	e.last = r
	if e.track {
		for len(e.wordEnds) < len(e.word) {
			e.wordEnds = append(e.wordEnds, end)
		}
	}
}

// finish ends the text before a token that is taken out, or the whole.
func (e *encoder) finish() {
	e.held = e.held[:0]
	if len(e.word) > 0 {
		e.flush()
	}
	e.begun = false
}

// flush splits the word.
func (e *encoder) flush() {
	if len(e.word) > maxCachedWord {
		e.split()
	} else {
		c, ok := e.cache[string(e.word)]
		if !ok {
			c = e.remember()
		}
		for i, id := range c.ids {
			e.add(id, e.endOf(int(c.ends[i])))
		}
	}
	e.word = e.word[:0]
	e.wordEnds = e.wordEnds[:0]
}

// remember splits the word and enters the result in the cache.
func (e *encoder) remember() cachedWord {
	ids, ends, unknown, track := len(e.ids), len(e.ends), e.unknown, e.track
	e.unknown, e.track, e.within = false, true, true
	e.split()
	c := cachedWord{ids: append([]int32(nil), e.ids[ids:]...)}
	for _, end := range e.ends[ends:] {
		c.ends = append(c.ends, uint8(end))
	}
	e.ids, e.ends = e.ids[:ids], e.ends[:ends]
	e.unknown, e.track, e.within = unknown, track, false
	if len(e.cache) >= maxCached {
		clear(e.cache)
	}
	e.cache[string(e.word)] = c
	return c
}

// add appends one token. Text without pieces in a row is one Unknown piece.
func (e *encoder) add(id int32, end int) {
	unknown := id == e.t.unk
	if unknown && e.unknown {
		if e.track {
			e.ends[len(e.ends)-1] = end
		}
		return
	}
	e.unknown = unknown
	e.ids = append(e.ids, id)
	if e.track {
		e.ends = append(e.ends, end)
	}
}

// emit appends the tokens of one symbol: of its piece, of the parts of an Unused
// one, or of its bytes.
func (e *encoder) emit(start, end int) {
	text := e.word[start:end]
	id, ok := e.t.ids[string(text)]
	switch k, unused := e.t.halves[id]; {
	case ok && unused:
		e.emit(start, start+k)
		e.emit(start+k, end)
	case ok:
		e.add(id, e.endOf(end))
	case e.t.v.ByteFallback:
		for _, b := range text {
			e.add(e.t.bytes[b], e.endOf(end))
		}
	default:
		e.add(e.t.unk, e.endOf(end))
	}
}

// endOf returns where the first n bytes of the word end in the text.
func (e *encoder) endOf(n int) int {
	switch {
	case e.within:
		return n
	case !e.track:
		return 0
	}
	return e.wordEnds[n-1]
}
