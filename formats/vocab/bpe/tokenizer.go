package bpe

import (
	"strings"
	"sync"
	"unicode/utf8"
)

const (
	// Words of up to maxCachedWord bytes are remembered, maxCached of them.
	maxCachedWord = 48
	maxCached     = 1 << 15

	// maxPooled bounds the buffers that are kept between texts.
	maxPooled = 1 << 16
)

// Tokenizer splits text as a Spec says. It is safe for concurrent use.
type Tokenizer struct {
	spec      *Spec
	model     *model
	normalize normalizerMaker // nil for none
	steps     []stepMaker
	decode    *decodeChain
	front     []int32 // what the post-processor puts in front, and at the end
	back      []int32
	texts     map[int32]string // the texts of tokens
	special   map[int32]bool   // the added tokens that are not part of decoded text
	cuts      cuts

	// Added tokens that are found in the raw and in the normalized text; all of
	// them, and without the special ones.
	all, plain [2]matcher

	encoders sync.Pool // *encoder
}

// New returns the tokenizer of a Spec, which must not change afterwards. Errors
// wrap tensor.ErrMalformed or tensor.ErrUnsupported.
func New(s *Spec) (*Tokenizer, error) {
	t := &Tokenizer{spec: s, texts: make(map[int32]string, len(s.Model.Vocab)+len(s.Added)), special: map[int32]bool{}}
	steps, raw, err := compileSteps(s.PreTokenizer)
	if err != nil {
		return nil, wrap("pre_tokenizer", err)
	}
	if m := &s.Model; raw && (m.ByteFallback || m.Prefix != "" || m.Suffix != "" || m.Type == Unigram || m.Type == WordPiece) {
		raw = false
		steps = append(steps, func() step {
			return func(p piece, to sink) { to(byteChars(p)) }
		})
	}
	t.steps = steps
	if t.normalize, err = compileNormalizer(s.Normalizer, 0); err != nil {
		return nil, wrap("normalizer", err)
	}
	if t.model, err = newModel(&s.Model, raw); err != nil {
		return nil, wrap("model", err)
	}
	if t.front, t.back, err = compileProcessor(s.PostProcessor, 0); err != nil {
		return nil, wrap("post_processor", err)
	}
	if t.decode, err = compileDecoder(s.Decoder); err != nil {
		return nil, wrap("decoder", err)
	}
	for text, id := range s.Model.Vocab {
		t.texts[id] = text
	}
	if err := t.addTokens(); err != nil {
		return nil, wrap("added_tokens", err)
	}
	t.cuts = t.findCuts()
	t.encoders.New = func() any { return t.newEncoder() }
	return t, nil
}

func (t *Tokenizer) addTokens() error {
	var normalize normalizer
	if t.normalize != nil {
		normalize = t.normalize()
	}
	for _, a := range t.spec.Added {
		if a.ID < 0 || a.ID >= maxTokens {
			return malformed("%s has the id %d", quote(a.Content), a.ID)
		}
		if len(a.Content) > maxAdded || !utf8.ValidString(a.Content) {
			return malformed("%s is too long or not UTF-8", quote(a.Content))
		}
		t.texts[a.ID] = a.Content
		if a.Special {
			t.special[a.ID] = true
		}
		kind, text := 0, a.Content
		if a.Normalized {
			kind = 1
			if normalize != nil {
				text = normalize(piece{s: text, first: true}).s
			}
		}
		if len(text) > 4*maxAdded {
			return unsupported("%s becomes %d bytes", quote(a.Content), len(text))
		}
		t.all[kind].add(text, a)
		if !a.Special {
			t.plain[kind].add(text, a)
		}
	}
	return nil
}

// Spec returns what the tokenizer was made of.
func (t *Tokenizer) Spec() *Spec { return t.spec }

// Encode returns the tokens of a text, without those of the post-processor.
// Special tokens are found in it only if special is true.
func (t *Tokenizer) Encode(text string, special bool) []int32 {
	e := t.encoder(special, false)
	defer t.release(e)
	e.write(valid(text, false))
	return append(make([]int32, 0, len(e.ids)), e.ids...)
}

// EncodeOffsets returns the tokens of a text, and for each the length of the text
// up to and including the last character that it is part of. A token that is only
// what was put in front of the text has 0.
func (t *Tokenizer) EncodeOffsets(text string, special bool) (ids []int32, ends []int) {
	e := t.encoder(special, true)
	defer t.release(e)
	e.write(valid(text, true))
	ids = append(make([]int32, 0, len(e.ids)), e.ids...)
	ends = append(make([]int, 0, len(e.ends)), e.ends...)
	return ids, ends
}

// Process puts the tokens of the post-processor around those of a text, as
// transformers' encode does.
func (t *Tokenizer) Process(ids []int32) []int32 {
	out := make([]int32, 0, len(t.front)+len(ids)+len(t.back))
	return append(append(append(out, t.front...), ids...), t.back...)
}

// encoder is the state of splitting one text.
type encoder struct {
	t         *Tokenizer
	normalize normalizer // nil for none
	first     sink       // the beginning of the pre-tokenizer
	word      word
	cache     map[string]cachedWord

	find  *[2]matcher
	track bool
	ids   []int32
	ends  []int // of each id, if track
	last  int   // the largest end so far
}

func (t *Tokenizer) newEncoder() *encoder {
	e := &encoder{t: t, word: t.model.newWord(), cache: map[string]cachedWord{}}
	if t.normalize != nil {
		e.normalize = t.normalize()
	}
	e.first = e.addWord
	for i := len(t.steps) - 1; i >= 0; i-- {
		step, next := t.steps[i](), e.first
		e.first = func(p piece) { step(p, next) }
	}
	return e
}

func (t *Tokenizer) encoder(special, track bool) *encoder {
	e := t.encoders.Get().(*encoder)
	e.track = track
	e.find = &t.plain
	if special {
		e.find = &t.all
	}
	return e
}

// release lets go of what a long text needed.
func (t *Tokenizer) release(e *encoder) {
	e.ids, e.ends, e.last = e.ids[:0], e.ends[:0], 0
	if cap(e.ids) > maxPooled {
		e.ids, e.ends = nil, nil
	}
	if cap(e.word.symbols) > maxPooled {
		e.word.symbols, e.word.queue = nil, nil
	}
	if e.word.lattice != nil {
		e.word.lattice.Shrink(maxPooled)
	}
	t.encoders.Put(e)
}

func (e *encoder) write(p piece) {
	e.find[0].split(p, func(p piece) {
		if e.normalize != nil {
			p = e.normalize(p)
		}
		e.find[1].split(p, e.first, e.take)
	}, e.take)
}

// take adds a token that was taken out of the text.
func (e *encoder) take(a *Added, p piece) { e.add(a.ID, p, len(p.s)) }

func (e *encoder) add(id int32, p piece, end int) {
	e.ids = append(e.ids, id)
	if e.track {
		e.last = max(e.last, p.end(end))
		e.ends = append(e.ends, e.last)
	}
}

// cachedWord are the tokens of a short word, and where each ends in it.
type cachedWord struct {
	ids  []int32
	ends []uint8
}

// addWord adds the tokens of a word.
func (e *encoder) addWord(p piece) {
	if len(p.s) > maxCachedWord {
		for _, s := range e.word.split(p.s) {
			if !s.gone {
				e.add(s.id, p, int(s.end))
			}
		}
		return
	}
	c, ok := e.cache[p.s]
	if !ok {
		for _, s := range e.word.split(p.s) {
			if !s.gone {
				c.ids = append(c.ids, s.id)
				c.ends = append(c.ends, uint8(s.end))
			}
		}
		if len(e.cache) >= maxCached {
			clear(e.cache)
		}
		e.cache[strings.Clone(p.s)] = c
	}
	if !e.track {
		e.ids = append(e.ids, c.ids...)
		return
	}
	for i, id := range c.ids {
		e.add(id, p, int(c.ends[i]))
	}
}
