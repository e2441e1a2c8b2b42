package bpe

import (
	"strings"
	"unicode/utf8"
)

// piece is a part of the text, normalized. Its bytes are those of the original
// from off on, unless ends says for each where the character that it comes from
// ends there. Where offsets are not asked for, off means nothing.
type piece struct {
	s     string
	ends  []int
	off   int
	first bool // it is the beginning of the text
	track bool
}

// slice returns a part of the piece.
func (p piece) slice(from, to int) piece {
	q := piece{s: p.s[from:to], off: p.off + from, first: p.first && from == 0, track: p.track}
	if p.ends != nil {
		q.ends = p.ends[from:to]
	}
	return q
}

// end returns where the first n bytes of the piece end in the original: behind
// the character that the last one is of.
func (p piece) end(n int) int {
	if n == 0 {
		return p.off
	}
	if p.ends != nil {
		return p.ends[n-1]
	}
	for n < len(p.s) && !utf8.RuneStart(p.s[n]) {
		n++
	}
	return p.off + n
}

// rewriter builds a piece from another one.
type rewriter struct {
	from piece
	b    strings.Builder
	ends []int
}

func rewrite(p piece) *rewriter {
	r := &rewriter{from: p}
	if p.track {
		r.ends = make([]int, 0, len(p.s))
	}
	return r
}

// keep appends the bytes from..to of the old piece.
func (r *rewriter) keep(from, to int) {
	r.b.WriteString(r.from.s[from:to])
	if !r.from.track {
		return
	}
	for from < to {
		_, n := utf8.DecodeRuneInString(r.from.s[from:])
		end := r.from.end(from + n)
		for range n {
			r.ends = append(r.ends, end)
		}
		from += n
	}
}

// put appends text that comes from the first n bytes of the old piece, or from
// what is before them.
func (r *rewriter) put(s string, n int) {
	r.b.WriteString(s)
	if !r.from.track {
		return
	}
	end := r.from.end(n)
	for range len(s) {
		r.ends = append(r.ends, end)
	}
}

func (r *rewriter) piece() piece {
	p := r.from
	p.s, p.ends = r.b.String(), r.ends
	return p
}

// valid returns text with U+FFFD for every byte that is not UTF-8.
func valid(text string, track bool) piece {
	p := piece{s: text, first: true, track: track}
	if utf8.ValidString(text) {
		return p
	}
	out := rewrite(p)
	for i := 0; i < len(text); {
		r, n := utf8.DecodeRuneInString(text[i:])
		if r == utf8.RuneError && n == 1 {
			// end would step over the bytes that cannot begin a character.
			out.b.WriteString("\uFFFD")
			if track {
				out.ends = append(out.ends, i+1, i+1, i+1)
			}
		} else {
			out.keep(i, i+n)
		}
		i += n
	}
	return out.piece()
}
