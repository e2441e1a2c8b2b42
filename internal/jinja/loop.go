package jinja

// loop is the variable loop of a for, and the iteration itself.
type loop struct {
	next          func() (Value, bool)
	size          int // -1: not known yet
	index         int
	depth         int
	current       Value
	before        Value
	after         Value
	peeked, ended bool
	changed       *Tuple
	recurse       func(Value, int) string // nil: not a recursive loop
}

func (l *loop) advance() bool {
	v, ok := l.after, !l.ended
	if l.peeked {
		l.peeked = false
	} else {
		v, ok = l.next()
	}
	if !ok {
		return false
	}
	l.index++
	l.before, l.current, l.after = l.current, v, nil
	return true
}

func (l *loop) peek() (Value, bool) {
	if !l.peeked {
		var ok bool
		l.after, ok = l.next()
		l.peeked, l.ended = true, !ok
	}
	return l.after, !l.ended
}

// length is how many values there are; where that is not known yet, it takes them all.
func (l *loop) length(r *run) int {
	if l.size >= 0 {
		return l.size
	}
	rest := r.drain(l.next)
	l.size = l.index + 1 + len(rest)
	if l.peeked && !l.ended {
		l.size++
	}
	l.next = over(rest)
	return l.size
}

func (r *run) execLoop(x *loopStmt, s *scope) jump {
	v := r.eval(x.iter, s)
	if !x.recursive {
		return r.runLoop(x, v, s, 0, nil)
	}
	var recurse func(Value, int) string
	recurse = func(v Value, depth int) string {
		r.enter()
		defer r.leave()
		return r.capture(func() { r.runLoop(x, v, s, depth, recurse) })
	}
	r.out.write(recurse(v, 0))
	return onward
}

func (r *run) runLoop(x *loopStmt, v Value, s *scope, depth int, recurse func(Value, int) string) jump {
	r.at = x.position
	next, size := r.iterate(v)
	if x.test != nil {
		all := next
		next, size = func() (Value, bool) {
			for {
				v, ok := all()
				if !ok {
					return nil, false
				}
				inner := &scope{outer: s}
				r.assign(x.target, v, inner)
				if r.truth(r.eval(x.test, inner)) {
					return v, true
				}
			}
		}, -1
	}
	l := &loop{next: next, size: size, index: -1, depth: depth, recurse: recurse}
	completed := false // what Jinja's else goes by: a body that got to its end
	for l.advance() {
		r.step(4)
		inner := &scope{outer: s}
		inner.set("loop", l)
		r.assign(x.target, l.current, inner)
		j := r.exec(x.body, inner)
		if j == breaking {
			break
		}
		completed = completed || j == onward
	}
	if !completed {
		return r.exec(x.otherwise, &scope{outer: s})
	}
	return onward
}

// attribute is one of loop's, and whether there is one of that name.
func (l *loop) attribute(r *run, name string) (Value, bool) {
	switch name {
	case "index":
		return int64(l.index + 1), true
	case "index0":
		return int64(l.index), true
	case "first":
		return l.index == 0, true
	case "last":
		_, more := l.peek()
		return !more, true
	case "length":
		return int64(l.length(r)), true
	case "revindex":
		return int64(l.length(r) - l.index), true
	case "revindex0":
		return int64(l.length(r) - l.index - 1), true
	case "depth":
		return int64(l.depth + 1), true
	case "depth0":
		return int64(l.depth), true
	case "previtem":
		if l.index == 0 {
			return &undefined{hint: "there is no previous item"}, true
		}
		return l.before, true
	case "nextitem":
		if v, more := l.peek(); more {
			return v, true
		}
		return &undefined{hint: "there is no next item"}, true
	case "cycle":
		return function{&builtin{name: "cycle", raw: func(r *run, _ Value, a values) Value {
			if len(a.positional) == 0 {
				r.fail("no items for cycling given")
			}
			return a.positional[l.index%len(a.positional)]
		}}, nil}, true
	case "changed":
		return function{&builtin{name: "changed", raw: func(r *run, _ Value, a values) Value {
			now := &Tuple{Items: a.positional}
			if l.changed != nil && r.equal(l.changed, now) {
				return false
			}
			l.changed = now
			return true
		}}, nil}, true
	}
	return nil, false
}

// over iterates over a slice.
func over(items []Value) func() (Value, bool) {
	i := 0
	return func() (Value, bool) {
		if i >= len(items) {
			return nil, false
		}
		i++
		return items[i-1], true
	}
}

// iterate goes over what v holds; size is -1 where only going over it tells.
func (r *run) iterate(v Value) (next func() (Value, bool), size int) {
	if all, ok := items(v); ok {
		return over(all), len(all)
	}
	if s, ok := stringOf(v); ok {
		n := runeCount(s)
		return func() (Value, bool) {
			if s == "" {
				return nil, false
			}
			c := firstRune(s)
			s = s[len(c):]
			return c, true
		}, n
	}
	switch v := v.(type) {
	case *Dict:
		return over(v.keys), len(v.keys)
	case *undefined:
		return over(nil), 0
	case rangeOf:
		i := int64(0)
		return func() (Value, bool) {
			if i >= v.n {
				return nil, false
			}
			i++
			return v.start + (i-1)*v.step, true
		}, int(v.n)
	case *iterator:
		return v.next, -1
	}
	r.fail("'%s' object is not iterable", typeName(v))
	return nil, 0
}

// drain is all values that are left.
func (r *run) drain(next func() (Value, bool)) []Value {
	var all []Value
	for {
		v, ok := next()
		if !ok {
			return all
		}
		if r.step(1); len(all) == cap(all) {
			r.make(int64(2*cap(all)+4) * valueSize)
		}
		all = append(all, v)
	}
}

// collect is list(v), of which nothing may be changed.
func (r *run) collect(v Value) []Value {
	if all, ok := items(v); ok {
		return all
	}
	next, _ := r.iterate(v)
	return r.drain(next)
}
