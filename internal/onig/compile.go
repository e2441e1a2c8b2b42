package onig

import "fmt"

// inst is one instruction. x and y are instructions, sets or numbers.
type inst struct {
	op    op
	ahead bool // it belongs to a look-ahead, of which only whether it matches counts
	x, y  int32
	id    int32 // among the instructions of its kind; -1 for a branch in a look-behind
}

type op uint8

const (
	doMatch  op = iota // the pattern, or the part of it that is tried, has matched
	doSet              // a character of set x
	doSplit            // x, and if that fails y
	doJump             // x
	doRun              // as many characters of set x as there are, one less each time that fails
	doAssert           // assertion x
	doAhead            // look-ahead: the part at the next instruction, then y; x is 1 if it must not match
	doBehind           // look-behind, the same; id says how far
	doAtomic           // the part at the next instruction, then y
	doEnter            // a round of a loop that may match nothing begins; id is its number
	doLeave            // that round ends: x to go on, y if it has matched nothing
)

// behind is a look-behind: from min to max characters back.
type behind struct{ min, max int }

type compiler struct {
	re     *Regexp
	index  map[*set]int32
	part   op // doAhead, doBehind or doAtomic: what the current part belongs to
	behind bool
}

func (c *compiler) compile(root *node) error {
	if err := c.node(root); err != nil {
		return err
	}
	_, err := c.emit(inst{op: doMatch})
	return err
}

func (c *compiler) emit(i inst) (int32, error) {
	if len(c.re.prog) >= maxProgram {
		return 0, fmt.Errorf("%w: more than %d instructions", ErrUnsupported, maxProgram)
	}
	i.ahead = c.part == doAhead
	switch {
	case i.op == doSplit && c.behind:
		i.id = -1
	case i.op == doSplit:
		i.id = int32(c.re.splits)
		c.re.splits++
	case i.op == doRun:
		i.id = int32(c.re.runs)
		c.re.runs++
	}
	c.re.prog = append(c.re.prog, i)
	return int32(len(c.re.prog) - 1), nil
}

// here is the number of the next instruction.
func (c *compiler) here() int32 { return int32(len(c.re.prog)) }

func (c *compiler) set(s *set) int32 {
	i, ok := c.index[s]
	if !ok {
		i = int32(len(c.re.sets))
		c.re.sets = append(c.re.sets, s)
		c.index[s] = i
	}
	return i
}

func (c *compiler) node(n *node) error {
	switch n.op {
	case opSequence:
		for _, sub := range n.subs {
			if err := c.node(sub); err != nil {
				return err
			}
		}
		return nil
	case opOneOf:
		return c.oneOf(n.subs)
	case opCharacter:
		_, err := c.emit(inst{op: doSet, x: c.set(n.set)})
		return err
	case opAssertion:
		_, err := c.emit(inst{op: doAssert, x: int32(n.assert)})
		return err
	case opRepeat:
		return c.repeat(n)
	case opAhead:
		i := inst{op: doAhead}
		if n.not {
			i.x = 1
		}
		return c.alone(i, n.subs[0])
	case opAtomic:
		return c.alone(inst{op: doAtomic}, n.subs[0])
	default:
		return c.lookBehind(n)
	}
}

func (c *compiler) oneOf(subs []*node) error {
	var ends []int32
	for i, sub := range subs {
		if i == len(subs)-1 {
			if err := c.node(sub); err != nil {
				return err
			}
			break
		}
		at, err := c.emit(inst{op: doSplit})
		if err != nil {
			return err
		}
		c.re.prog[at].x = c.here()
		if err := c.node(sub); err != nil {
			return err
		}
		end, err := c.emit(inst{op: doJump})
		if err != nil {
			return err
		}
		ends = append(ends, end)
		c.re.prog[at].y = c.here()
	}
	for _, end := range ends {
		c.re.prog[end].x = c.here()
	}
	return nil
}

// alone emits i, a part that is matched on its own, and its end.
func (c *compiler) alone(i inst, sub *node) error {
	at, err := c.emit(i)
	if err != nil {
		return err
	}
	outer := *c
	c.part, c.behind = i.op, c.behind || i.op == doBehind
	err = c.node(sub)
	c.part, c.behind = outer.part, outer.behind
	if err != nil {
		return err
	}
	if _, err := c.emit(inst{op: doMatch}); err != nil {
		return err
	}
	c.re.prog[at].y = c.here()
	return nil
}

func (c *compiler) lookBehind(n *node) error {
	lo, hi := width(n.subs[0])
	if hi < 0 || hi > maxBehind {
		return fmt.Errorf("%w: look-behind of more than %d characters", ErrUnsupported, maxBehind)
	}
	i := inst{op: doBehind, id: int32(len(c.re.behind))}
	if n.not {
		i.x = 1
	}
	c.re.behind = append(c.re.behind, behind{lo, hi})
	// What is looked for must end where the look-behind stands.
	end := &node{op: opAssertion, assert: behindEnd}
	return c.alone(i, &node{op: opSequence, subs: []*node{n.subs[0], end}})
}

// width returns how many characters a node matches at least and at most; -1 for
// no bound, or one too high to matter.
func width(n *node) (lo, hi int) {
	const most = maxBehind + 1
	switch n.op {
	case opCharacter:
		return 1, 1
	case opSequence, opAtomic:
		for _, sub := range n.subs {
			l, h := width(sub)
			lo = min(lo+l, most)
			if hi < 0 || h < 0 || hi+h > most {
				hi = -1
			} else {
				hi += h
			}
		}
	case opOneOf:
		lo = most
		for _, sub := range n.subs {
			l, h := width(sub)
			lo = min(lo, l)
			if hi < 0 || h < 0 {
				hi = -1
			} else {
				hi = max(hi, h)
			}
		}
	case opRepeat:
		l, h := width(n.subs[0])
		lo = min(l*min(n.min, most), most)
		switch {
		case h == 0 || n.max == 0:
			hi = 0
		case h < 0 || n.max < 0 || n.max > most || h*n.max > most:
			hi = -1
		default:
			hi = h * n.max
		}
	}
	return lo, hi
}

// repeat emits the copies that must match, and then a loop or the copies that
// may.
func (c *compiler) repeat(n *node) error {
	if n.mode == possessive {
		again := *n
		again.mode = greedy
		return c.alone(inst{op: doAtomic}, &again)
	}
	sub := n.subs[0]
	if n.max == 0 {
		return nil
	}
	for range n.min {
		if err := c.node(sub); err != nil {
			return err
		}
	}
	if n.max < 0 {
		return c.loop(sub, n.mode)
	}
	var skips []int32
	for range n.max - n.min {
		at, err := c.emit(inst{op: doSplit})
		if err != nil {
			return err
		}
		skips = append(skips, at)
		if err := c.node(sub); err != nil {
			return err
		}
	}
	for _, at := range skips {
		c.branch(at, at+1, c.here(), n.mode)
	}
	return nil
}

// branch sets where a split goes: into what it repeats, or past it.
func (c *compiler) branch(at, into, past int32, m mode) {
	if m == lazy {
		into, past = past, into
	}
	c.re.prog[at].x, c.re.prog[at].y = into, past
}

func (c *compiler) loop(sub *node, m mode) error {
	if sub.op == opSequence && len(sub.subs) == 1 {
		return c.loop(sub.subs[0], m)
	}
	if sub.op == opCharacter && m == greedy {
		_, err := c.emit(inst{op: doRun, x: c.set(sub.set)})
		return err
	}
	split, err := c.emit(inst{op: doSplit})
	if err != nil {
		return err
	}
	lo, _ := width(sub)
	loop := int32(c.re.loops)
	if lo == 0 {
		c.re.loops++
		if _, err := c.emit(inst{op: doEnter, id: loop}); err != nil {
			return err
		}
	}
	if err := c.node(sub); err != nil {
		return err
	}
	back := inst{op: doJump, x: split}
	if lo == 0 {
		back = inst{op: doLeave, x: split, id: loop}
	}
	at, err := c.emit(back)
	if err != nil {
		return err
	}
	if lo == 0 {
		c.re.prog[at].y = c.here()
	}
	c.branch(split, split+1, c.here(), m)
	return nil
}
