package onig

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/seed18967229/nibble/internal/ucd"
)

// node is a part of a pattern.
type node struct {
	op   nodeOp
	set  *set
	subs []*node

	min, max int // of a repetition; max is -1 for no bound
	mode     mode

	assert assertion
	not    bool // of look-around
}

type nodeOp uint8

const (
	opSequence  nodeOp = iota // subs one after another; none of them matches nothing
	opOneOf                   // the first of subs that matches
	opCharacter               // one of set
	opRepeat                  // subs[0] min to max times
	opAssertion               // matches no text
	opAhead                   // whether subs[0] matches here
	opBehind                  // whether subs[0] matches what ends here
	opAtomic                  // subs[0], once matched, is not tried another way
)

type mode uint8

const (
	greedy mode = iota
	lazy
	possessive
)

type assertion uint8

const (
	lineStart assertion = iota
	lineEnd
	textStart
	textEnd
	lastLine // the end, or a line feed at the end
	wordEdge
	noWordEdge
	behindEnd // where the look-behind stands that this is the end of
)

type options struct{ ignoreCase, dotAll, extended bool }

type parser struct {
	src    string
	at     int
	depth  int
	opt    options
	sets   map[string]*set
	ranges int
}

func (p *parser) syntax(format string, args ...any) error {
	return fmt.Errorf("%w: %s at byte %d", ErrSyntax, fmt.Sprintf(format, args...), p.at)
}

func (p *parser) unsupported(format string, args ...any) error {
	return fmt.Errorf("%w: %s at byte %d", ErrUnsupported, fmt.Sprintf(format, args...), p.at)
}

func (p *parser) parse() (*node, error) {
	if !utf8.ValidString(p.src) {
		return nil, p.syntax("not UTF-8")
	}
	n, err := p.alternatives()
	if err == nil && p.at < len(p.src) {
		err = p.syntax("unmatched )")
	}
	return n, err
}

func (p *parser) more() bool { return p.at < len(p.src) }

// take steps over a prefix of what is left, if it is there.
func (p *parser) take(prefix string) bool {
	if !strings.HasPrefix(p.src[p.at:], prefix) {
		return false
	}
	p.at += len(prefix)
	return true
}

func (p *parser) next() rune {
	r, n := utf8.DecodeRuneInString(p.src[p.at:])
	p.at += n
	return r
}

// alternatives parses up to the end or a closing parenthesis.
func (p *parser) alternatives() (*node, error) {
	if p.depth++; p.depth > maxDepth {
		return nil, p.unsupported("nested more than %d deep", maxDepth)
	}
	defer func() { p.depth-- }()
	alt := &node{op: opOneOf}
	for {
		seq, err := p.sequence()
		if err != nil {
			return nil, err
		}
		alt.subs = append(alt.subs, seq)
		if !p.take("|") {
			break
		}
	}
	if len(alt.subs) == 1 {
		return alt.subs[0], nil
	}
	return alt, nil
}

func (p *parser) sequence() (*node, error) {
	seq := &node{op: opSequence}
	for p.more() {
		if c := p.src[p.at]; c == '|' || c == ')' {
			break
		}
		n, err := p.atom()
		if err != nil {
			return nil, err
		}
		if n == nil {
			continue
		}
		if n, err = p.quantified(n); err != nil {
			return nil, err
		}
		seq.subs = append(seq.subs, n)
	}
	return seq, nil
}

// atom parses what a quantifier may follow; nil for a comment.
func (p *parser) atom() (*node, error) {
	if p.opt.extended {
		if c := p.src[p.at]; strings.IndexByte(" \t\n\r\f\v", c) >= 0 {
			p.at++
			return nil, nil
		} else if c == '#' {
			for p.more() && p.next() != '\n' {
			}
			return nil, nil
		}
	}
	switch r := p.next(); r {
	case '(':
		return p.group()
	case '[':
		pairs, err := p.class()
		if err != nil {
			return nil, err
		}
		return p.character(pairs)
	case '.':
		if p.opt.dotAll {
			return p.character(negate(nil))
		}
		return p.character(negate([]rune{'\n', '\n'}))
	case '^':
		return &node{op: opAssertion, assert: lineStart}, nil
	case '$':
		return &node{op: opAssertion, assert: lineEnd}, nil
	case '\\':
		return p.escape()
	case '*', '+', '?':
		return nil, p.syntax("nothing to repeat")
	case '{':
		p.at--
		if _, _, ok, err := p.interval(); ok || err != nil {
			return nil, cmp.Or(err, p.syntax("nothing to repeat"))
		}
		p.at++
		return p.literal(r)
	default:
		return p.literal(r)
	}
}

func (p *parser) literal(r rune) (*node, error) {
	pairs := []rune{r, r}
	if p.opt.ignoreCase {
		pairs = anyCase(pairs)
	}
	return p.character(pairs)
}

// character makes a node of a set, one for all equal sets.
func (p *parser) character(pairs []rune) (*node, error) {
	key := make([]byte, 0, 4*len(pairs))
	for _, r := range pairs {
		key = binary.BigEndian.AppendUint32(key, uint32(r))
	}
	if s, ok := p.sets[string(key)]; ok {
		return &node{op: opCharacter, set: s}, nil
	}
	if p.ranges += len(pairs) / 2; p.ranges > maxRanges {
		return nil, p.unsupported("sets of more than %d ranges", maxRanges)
	}
	s := newSet(pairs)
	p.sets[string(key)] = s
	return &node{op: opCharacter, set: s}, nil
}

// group parses what follows an opening parenthesis.
func (p *parser) group() (*node, error) {
	saved := p.opt
	n := &node{op: opSequence}
	if p.take("?") {
		switch {
		case p.take(":"):
		case p.take("="):
			n.op = opAhead
		case p.take("!"):
			n.op, n.not = opAhead, true
		case p.take("<="):
			n.op = opBehind
		case p.take("<!"):
			n.op, n.not = opBehind, true
		case p.take(">"):
			n.op = opAtomic
		case p.take("#"):
			for p.more() {
				if p.next() == ')' {
					return nil, nil
				}
			}
			return nil, p.syntax("comment without an end")
		case p.take("<"), p.take("'"):
			end := strings.IndexAny(p.src[p.at:], ">'")
			if end < 1 {
				return nil, p.syntax("group name without an end")
			}
			p.at += end + 1
		default:
			isolated, err := p.setOptions()
			if err != nil {
				return nil, err
			}
			if isolated { // the rest of the group that this one is in
				sub, err := p.alternatives()
				p.opt = saved
				return sub, err
			}
		}
	}
	sub, err := p.alternatives()
	if err != nil {
		return nil, err
	}
	if !p.take(")") {
		return nil, p.syntax("missing )")
	}
	p.opt = saved
	n.subs = []*node{sub}
	return n, nil
}

// setOptions parses "imx-imx:" or, for the rest of a group, "imx-imx)".
func (p *parser) setOptions() (isolated bool, err error) {
	on := true
	for p.more() {
		switch c := p.next(); c {
		case ':':
			return false, nil
		case ')':
			return true, nil
		case '-':
			on = false
		case 'i':
			p.opt.ignoreCase = on
		case 'm':
			p.opt.dotAll = on
		case 'x':
			p.opt.extended = on
		default:
			p.at--
			return false, p.unsupported("group (?%c", c)
		}
	}
	return false, p.syntax("missing )")
}

// quantified parses the quantifiers after a node.
func (p *parser) quantified(n *node) (*node, error) {
	for count := 0; p.more(); count++ {
		lo, hi, interval := 0, -1, false
		switch {
		case p.take("*"):
		case p.take("+"):
			lo = 1
		case p.take("?"):
			hi = 1
		case p.src[p.at] == '{':
			var ok bool
			var err error
			if lo, hi, ok, err = p.interval(); err != nil {
				return nil, err
			}
			if !ok {
				return n, nil
			}
			interval = true
		default:
			return n, nil
		}
		if count >= 8 {
			return nil, p.unsupported("more than 8 quantifiers in a row")
		}
		n = &node{op: opRepeat, subs: []*node{n}, min: lo, max: hi}
		switch {
		case interval && lo > hi && hi >= 0: // Ruby's way to write a possessive {hi,lo}
			n.min, n.max, n.mode = hi, lo, possessive
		case interval && lo == hi: // {n}? is {n} or nothing, {n}+ is it more than once
		case p.take("?"):
			n.mode = lazy
		case !interval && p.take("+"):
			n.mode = possessive
		}
	}
	return n, nil
}

// interval parses {n,m} and its short forms. What looks different is text.
func (p *parser) interval() (lo, hi int, ok bool, err error) {
	end := strings.IndexByte(p.src[p.at:], '}')
	if end < 0 {
		return 0, 0, false, nil
	}
	from, to, comma := strings.Cut(p.src[p.at+1:p.at+end], ",")
	number := func(s string, absent int) (int, bool) {
		if s == "" {
			return absent, true
		}
		n, err := strconv.ParseUint(s, 10, 31)
		return int(n), err == nil && s[0] >= '0' && s[0] <= '9'
	}
	if from == "" && to == "" {
		return 0, 0, false, nil
	}
	lo, okFrom := number(from, 0)
	hi, okTo := number(to, -1)
	if !comma {
		hi = lo
	}
	if !okFrom || !okTo {
		return 0, 0, false, nil
	}
	p.at += end + 1
	if lo > maxRepeat || hi > maxRepeat {
		return 0, 0, false, p.syntax("repetition of more than %d", maxRepeat)
	}
	return lo, hi, true, nil
}

// anchors are the escapes that match no text.
var anchors = map[rune]assertion{
	'A': textStart, 'z': textEnd, 'Z': lastLine, 'b': wordEdge, 'B': noWordEdge,
}

// escape parses what follows a backslash outside of a set.
func (p *parser) escape() (*node, error) {
	if !p.more() {
		return nil, p.syntax("pattern ends with a backslash")
	}
	r := p.next()
	if a, ok := anchors[r]; ok {
		return &node{op: opAssertion, assert: a}, nil
	}
	switch {
	case r == 'R': // a line end, which is not taken apart
		crlf, err := p.text("\r\n")
		if err != nil {
			return nil, err
		}
		one, err := p.character([]rune{'\n', '\r', 0x85, 0x85, 0x2028, 0x2029})
		return &node{op: opAtomic, subs: []*node{{op: opOneOf, subs: []*node{crlf, one}}}}, err
	case r == 'N':
		return p.character(negate([]rune{'\n', '\n'}))
	case r == 'O':
		return p.character(negate(nil))
	case r >= '1' && r <= '9':
		return nil, p.unsupported("back-reference")
	}
	pairs, char, err := p.setEscape(r, ucd.Word)
	if err != nil {
		return nil, err
	}
	if pairs == nil {
		return p.literal(char)
	}
	return p.character(pairs)
}

func (p *parser) text(s string) (*node, error) {
	seq := &node{op: opSequence}
	for _, r := range s {
		n, err := p.character([]rune{r, r})
		if err != nil {
			return nil, err
		}
		seq.subs = append(seq.subs, n)
	}
	return seq, nil
}

var controls = map[rune]rune{'t': '\t', 'v': '\v', 'n': '\n', 'r': '\r', 'f': '\f', 'a': '\a', 'e': 0x1b}
