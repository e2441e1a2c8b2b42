package onig

import "unicode/utf8"

const (
	// A text of n bytes may take slack+slackPerByte*n steps before the Matcher
	// begins to remember which branches failed where.
	slack        = 4096
	slackPerByte = 16

	// The steps for one text are bounded by maxSteps and maxStepsPerByte. Then
	// there are no more matches, as when Oniguruma gives up. Only look-behinds that
	// are made for it need so many.
	maxSteps        = 1 << 24
	maxStepsPerByte = 256
)

// Matcher finds the matches in one text after another. It must not be used by
// several goroutines at once.
type Matcher struct {
	re   *Regexp
	text string

	// Where the next search starts, and the end of the last match or -1.
	from, last int

	word   *set // \w
	stack  []frame
	rounds []int // where the current round of a loop began, by loop
	runs   []run
	ends   []int // where the look-behinds stand that are being tried

	// How many steps so far, how many until branches are remembered, and how many
	// at most.
	steps, slow, most int

	memory memory
}

// frame is what to do when a way to match has failed.
type frame struct {
	kind   frameKind
	ahead  bool
	pc     int32 // for the last two kinds the number of the loop or branch
	at     int
	lo, hi int
}

type frameKind uint8

const (
	tryAt      frameKind = iota // go on at pc and at
	shorterRun                  // give up one character of the run from lo to hi
	oldRound                    // the round of the loop began at lo
	hasFailed                   // nothing matches from the branch and at
)

// run is what is known about a loop over one set.
type run struct {
	lo, hi         int // the characters of this range are in the set, that after it is not
	failLo, failHi int // what follows the loop matches nowhere in this range
}

// Matcher returns a Matcher for the pattern.
func (re *Regexp) Matcher() *Matcher {
	m := &Matcher{re: re, rounds: make([]int, re.loops), runs: make([]run, re.runs), word: words()}
	m.memory.branches = re.splits
	return m
}

// Reset starts with another text, which must be valid UTF-8.
func (m *Matcher) Reset(text string) {
	m.text, m.from, m.last = text, 0, -1
	for i := range m.runs {
		m.runs[i] = run{lo: -1, hi: -1, failLo: -1, failHi: -1}
	}
	m.steps, m.slow = 0, slack+slackPerByte*len(text)
	m.most = maxSteps + maxStepsPerByte*len(text)
	m.memory.clear()
}

// Next returns the next match that does not overlap with those before. An empty
// match is not found where the last one ended.
func (m *Matcher) Next() (start, end int, ok bool) {
	for m.from <= len(m.text) {
		if start, end, ok = m.search(); !ok {
			m.from = len(m.text) + 1
			return 0, 0, false
		}
		if start == end && end == m.last {
			_, n := utf8.DecodeRuneInString(m.text[m.from:])
			m.from += max(n, 1)
			continue
		}
		m.from, m.last = end, end
		return start, end, true
	}
	return 0, 0, false
}

func (m *Matcher) search() (start, end int, ok bool) {
	for at := m.from; ; {
		if end := m.match(0, at); end >= 0 {
			return at, end, true
		}
		if at == len(m.text) || m.steps > m.most {
			return 0, 0, false
		}
		_, n := decode(m.text, at)
		at += n
		m.memory.forget(at)
	}
}

// match runs a part of the program at a place in the text, and returns the end
// of the match, or -1.
func (m *Matcher) match(pc int32, at int) int {
	base := len(m.stack)
	text, prog, sets := m.text, m.re.prog, m.re.sets
	for {
		i := &prog[pc]
		m.steps++
		ok := true
		switch i.op {
		case doMatch:
			m.succeeded(base)
			return at
		case doSet:
			if ok = at < len(text); ok {
				r, n := decode(text, at)
				ok = sets[i.x].has(r)
				at, pc = at+n, pc+1
			}
		case doSplit:
			if m.steps > m.slow && i.id >= 0 {
				switch m.memory.get(i.id, at) {
				case failed:
					ok = false
				case matched:
					m.succeeded(base)
					return at
				default:
					m.stack = append(m.stack, frame{kind: hasFailed, ahead: i.ahead, pc: i.id, at: at})
				}
			}
			if ok {
				m.stack = append(m.stack, frame{kind: tryAt, pc: i.y, at: at})
				pc = i.x
			}
		case doJump:
			pc = i.x
		case doRun:
			var from, end int
			if from, end, ok = m.run(i, at); ok {
				if end > at {
					m.stack = append(m.stack, frame{kind: shorterRun, pc: pc, at: from, lo: at, hi: end})
				}
				at, pc = from, pc+1
			}
		case doAssert:
			ok = m.holds(assertion(i.x), at)
			pc++
		case doAhead:
			ok = (m.match(pc+1, at) >= 0) == (i.x == 0)
			pc = i.y
		case doBehind:
			ok = m.looksBehind(m.re.behind[i.id], pc+1, at) == (i.x == 0)
			pc = i.y
		case doAtomic:
			at = m.match(pc+1, at)
			ok, pc = at >= 0, i.y
		case doEnter:
			m.stack = append(m.stack, frame{kind: oldRound, pc: i.id, lo: m.rounds[i.id]})
			m.rounds[i.id] = at
			pc++
		case doLeave:
			pc = i.x
			if m.rounds[i.id] == at {
				pc = i.y
			}
		}
		if ok && m.steps <= m.most {
			continue
		}
		if pc, at, ok = m.back(base); !ok {
			return -1
		}
	}
}

// succeeded drops the frames above base. The branches on the way to the end of a
// look-ahead will lead there again.
func (m *Matcher) succeeded(base int) {
	if m.steps > m.slow {
		for _, f := range m.stack[base:] {
			if f.kind == hasFailed && f.ahead {
				m.memory.set(f.pc, f.at, matched)
			}
		}
	}
	m.stack = m.stack[:base]
}

// back takes what to try next off the stack, down to base.
func (m *Matcher) back(base int) (pc int32, at int, ok bool) {
	if m.steps > m.most {
		m.stack = m.stack[:base]
	}
	for len(m.stack) > base {
		f := &m.stack[len(m.stack)-1]
		switch f.kind {
		case tryAt:
			pc, at = f.pc, f.at
			m.stack = m.stack[:len(m.stack)-1]
			return pc, at, true
		case shorterRun:
			if f.at > f.lo {
				_, n := utf8.DecodeLastRuneInString(m.text[:f.at])
				f.at -= n
				return f.pc + 1, f.at, true
			}
			r := &m.runs[m.re.prog[f.pc].id]
			r.failLo, r.failHi = f.lo, f.hi
		case oldRound:
			m.rounds[f.pc] = f.lo
		case hasFailed:
			m.memory.set(f.pc, f.at, failed)
		}
		m.stack = m.stack[:len(m.stack)-1]
	}
	return 0, 0, false
}

// run returns the end of the run of characters of a set, and from where down to
// at what follows the loop has to be tried: what is known to match nothing is left
// out. If that is all of it, run returns false.
func (m *Matcher) run(i *inst, at int) (from, end int, ok bool) {
	r := &m.runs[i.id]
	if at < r.lo || at > r.hi {
		end := at
		for s := m.re.sets[i.x]; end < len(m.text) && end != r.lo; m.steps++ {
			c, n := decode(m.text, end)
			if !s.has(c) {
				break
			}
			end += n
		}
		if end != r.lo {
			r.hi = end
		}
		r.lo = at
	}
	switch {
	case r.hi != r.failHi:
		return r.hi, r.hi, true
	case at >= r.failLo:
		return 0, 0, false
	}
	_, n := utf8.DecodeLastRuneInString(m.text[:r.failLo])
	return r.failLo - n, r.hi, true
}

func (m *Matcher) looksBehind(b behind, pc int32, at int) bool {
	m.ends = append(m.ends, at)
	defer func() { m.ends = m.ends[:len(m.ends)-1] }()
	from := at
	for n := 0; n <= b.max; n++ {
		if n >= b.min && m.match(pc, from) >= 0 {
			return true
		}
		if from == 0 {
			return false
		}
		_, size := utf8.DecodeLastRuneInString(m.text[:from])
		from -= size
	}
	return false
}

func (m *Matcher) holds(a assertion, at int) bool {
	text := m.text
	switch a {
	case lineStart: // not after a line feed that ends the text
		return at == 0 || text[at-1] == '\n' && at < len(text)
	case lineEnd:
		return at == len(text) || text[at] == '\n'
	case textStart:
		return at == 0
	case textEnd:
		return at == len(text)
	case lastLine:
		return at == len(text) || at == len(text)-1 && text[at] == '\n'
	case behindEnd:
		return at == m.ends[len(m.ends)-1]
	}
	before, after := false, false
	if at > 0 {
		r, _ := utf8.DecodeLastRuneInString(text[:at])
		before = m.word.has(r)
	}
	if at < len(text) {
		r, _ := decode(text, at)
		after = m.word.has(r)
	}
	return (before != after) == (a == wordEdge)
}
