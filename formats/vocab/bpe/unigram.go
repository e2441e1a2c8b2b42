package bpe

import (
	"github.com/clipperhouse/uax29/v2/graphemes"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/seed18967229/nibble/formats/vocab/unigram"
)

// parseUnigram reads a model of that type: a list of tokens with their scores, in
// the order of their ids.
func parseUnigram(text jsontext.Value) (m Model, err error) {
	var file struct {
		Unk          *int64           `json:"unk_id"`
		Vocab        []jsontext.Value `json:"vocab"`
		ByteFallback bool             `json:"byte_fallback"`
	}
	if err := json.Unmarshal(text, &file); err != nil {
		return m, jsonError(err)
	}
	switch {
	case len(file.Vocab) == 0:
		return m, malformed("vocab: there is none")
	case len(file.Vocab) > maxTokens:
		return m, malformed("vocab: %d tokens; at most %d", len(file.Vocab), maxTokens)
	case file.Unk == nil:
		return m, unsupported("no unk_id, so that not every text can be split")
	case *file.Unk < 0 || *file.Unk >= int64(len(file.Vocab)):
		return m, malformed("unk_id %d in a vocabulary of %d", *file.Unk, len(file.Vocab))
	}
	m = Model{Type: Unigram, Vocab: make(Vocabulary, len(file.Vocab)), Scores: make([]float64, len(file.Vocab)), ByteFallback: file.ByteFallback}
	for i, v := range file.Vocab {
		var pair []jsontext.Value
		if err := json.Unmarshal(v, &pair); err != nil {
			return m, jsonError(err)
		}
		var token string
		if len(pair) != 2 || json.Unmarshal(pair[0], &token) != nil || json.Unmarshal(pair[1], &m.Scores[i]) != nil {
			return m, malformed("vocab: token %d is not a text and a score", i)
		}
		if other, ok := m.Vocab[token]; ok {
			return m, malformed("vocab: token %s is both %d and %d", quote(token), other, i)
		}
		m.Vocab[token] = int32(i)
		if int64(i) == *file.Unk {
			m.Unk = token
		}
	}
	return m, nil
}

func (m *Model) unigramFile() any {
	vocab := make([][2]any, len(m.Scores))
	for text, id := range m.Vocab {
		if int(id) < len(vocab) {
			vocab[id] = [2]any{text, m.Scores[id]}
		}
	}
	return struct {
		Type         string   `json:"type"`
		Unk          int32    `json:"unk_id"`
		Vocab        [][2]any `json:"vocab"`
		ByteFallback bool     `json:"byte_fallback"`
	}{Unigram, m.Vocab[m.Unk], vocab, m.ByteFallback}
}

func (m *model) addScores() error {
	spec := m.spec
	if m.unk < 0 || len(spec.Scores) != len(spec.Vocab) {
		return malformed("%d tokens with %d scores and the unknown one %s", len(spec.Vocab), len(spec.Scores), quote(spec.Unk))
	}
	pieces := make([]unigram.Piece, len(spec.Scores))
	worst := spec.Scores[0]
	for text, id := range spec.Vocab {
		if int(id) >= len(pieces) {
			return malformed("token %s has the id %d of %d", quote(text), id, len(pieces))
		}
		pieces[id] = unigram.Piece{Text: text, Score: spec.Scores[id], ID: id}
	}
	for _, score := range spec.Scores {
		worst = min(worst, score)
	}
	m.unigram = unigram.New(pieces, worst, false)
	return nil
}

// probable splits a word into its most probable tokens. What the library takes for
// unknown in a row is one token, or its bytes.
func (w *word) probable(s string) {
	m := w.m
	start, unknown := 0, 0 // unknown text is from unknown to start
	flush := func() {
		text := s[unknown:start]
		if text == "" {
			return
		}
		if id, ok := m.vocab[text]; ok {
			w.add(id, start)
			return
		}
		if !m.falls(text) {
			w.add(m.unk, start)
			return
		}
		for i := range len(text) {
			w.add(m.fallback[text[i]], start)
		}
	}
	for _, p := range unigram.Split(w.lattice, s) {
		if p.ID != unigram.Unknown && p.ID != m.unk {
			flush()
			unknown = int(p.End)
			w.add(p.ID, int(p.End))
		}
		start = int(p.End)
	}
	flush()
}

// precompiled is the normalizer of that name. The library looks for the text of a
// short cluster of characters in the table, and takes the first entry that it begins
// with for all of it, else for that of each character.
func precompiled(n *Precompiled) (normalizerMaker, error) {
	table, err := unigram.ParseCharsmap(n.Charsmap)
	if err != nil {
		return nil, err
	}
	return always(func(p piece) piece {
		var out *rewriter
		kept := 0
		put := func(from, to int, with string) {
			if out == nil {
				out = rewrite(p)
			}
			out.keep(kept, from)
			out.put(with, to)
			kept = to
		}
		for at := 0; at < len(p.s); {
			if at+1 < len(p.s) && table.Plain(p.s[at]) && p.s[at+1] < 0x80 {
				at++
				continue
			}
			end := at + cluster(p.s[at:])
			if end-at < 6 {
				if with, ok := table.Shortest(p.s[at:end]); ok {
					put(at, end, with)
					at = end
					continue
				}
			}
			for i, r := range p.s[at:end] {
				i += at
				if with, ok := table.Shortest(string(r)); ok {
					put(i, i+len(string(r)), with)
				}
			}
			at = end
		}
		if out == nil {
			return p
		}
		out.keep(kept, len(p.s))
		return out.piece()
	}), nil
}

// cluster returns the length of the first cluster of characters.
func cluster(s string) int {
	it := graphemes.FromString(s)
	if !it.Next() {
		return len(s)
	}
	return len(it.Value())
}
