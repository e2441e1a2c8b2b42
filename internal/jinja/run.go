package jinja

import (
	"fmt"
	"time"
)

// Limits bound a rendering. Zero means the value of DefaultLimits.
type Limits struct {
	Steps  int64 // what is evaluated, and what is looked at within long values
	Memory int64 // bytes of strings, lists and dicts that are made, all together
	Output int64 // bytes of text
	Depth  int   // how deep evaluation nests, macros included
}

// DefaultLimits are far above what templates of models need for a conversation of some hundred messages.
var DefaultLimits = Limits{Steps: 1_000_000, Memory: 8 << 20, Output: 4 << 20, Depth: 1500}

func (l Limits) withDefaults() Limits {
	d := DefaultLimits
	if l.Steps > 0 {
		d.Steps = l.Steps
	}
	if l.Memory > 0 {
		d.Memory = l.Memory
	}
	if l.Output > 0 {
		d.Output = l.Output
	}
	if l.Depth > 0 {
		d.Depth = l.Depth
	}
	return d
}

// Options say how a template is rendered.
type Options struct {
	Now    time.Time // what strftime_now sees
	Limits Limits
}

// Span is a range of bytes of a text.
type Span struct{ From, To int }

// Result is what a template made.
type Result struct {
	Text string
	// Marked is what stands between {% generation %} and {% endgeneration %}.
	Marked []Span
	// Scattered tells that some of it came out of a macro, a filter or a set block, so that where it ended up is unknown.
	Scattered bool
}

// Render renders the template with the variables given.
func (t *Template) Render(vars *Dict, o Options) (result Result, err error) {
	defer recovered(&err)
	r := &run{limits: o.Limits.withDefaults(), now: o.Now, vars: vars, filters: filters, tests: tests, methods: methodsOf}
	r.steps, r.memory = r.limits.Steps, r.limits.Memory
	r.out = &builder{run: r, limit: r.limits.Output}
	r.exec(t.body, &scope{})
	return Result{Text: r.out.String(), Marked: r.marked, Scattered: r.scattered}, nil
}

// run is one rendering.
type run struct {
	limits        Limits
	steps, memory int64 // what is left
	depth         int
	at            position // of what is evaluated
	now           time.Time
	vars          *Dict
	// The tables, which what they hold looks into.
	filters, tests map[string]*builtin
	methods        func(Value) map[string]*builtin
	out            *builder
	captures       int // how many of the texts under way are not the template's
	marked         []Span
	scattered      bool
}

func (r *run) fail(format string, args ...any) { r.at.fail(Runtime, format, args...) }

func (r *run) exceeded(what string, limit int64) {
	r.at.fail(Limit, "the template took more than %d %s; it loops, or doubles what it makes", limit, what)
}

func (r *run) step(n int64) {
	if r.steps -= n; r.steps < 0 {
		r.exceeded("steps", r.limits.Steps)
	}
}

// scan counts going through n bytes or so.
func (r *run) scan(n int) { r.step(1 + int64(n)/16) }

// make counts n bytes that are about to be built, so that it fails before they are.
func (r *run) make(n int64) {
	if n < 0 || n > r.memory {
		r.exceeded("bytes of values", r.limits.Memory)
	}
	r.memory -= n
	r.step(1 + n/256)
}

// enter counts a level of nesting in, leave counts it out.
func (r *run) enter() {
	if r.depth++; r.depth > r.limits.Depth {
		r.at.fail(Limit, "the template nests more than %d deep; it calls itself without end", r.limits.Depth)
	}
}

func (r *run) leave() { r.depth-- }

// valueSize is what a value in a list takes.
const valueSize = 16

// builder is a text under way, counted as it grows.
type builder struct {
	run   *run
	limit int64 // of the whole text; 0: that of memory alone
	b     []byte
}

func (b *builder) write(s string) {
	if b.limit > 0 && int64(len(b.b)+len(s)) > b.limit {
		b.run.exceeded("bytes of text", b.limit)
	}
	// A slice that grows has been copied a few times.
	if len(b.b)+len(s) > cap(b.b) {
		b.run.make(int64(2 * (len(b.b) + len(s))))
		b.b = append(make([]byte, 0, 2*(len(b.b)+len(s))), b.b...)
	}
	b.b = append(b.b, s...)
}

func (b *builder) String() string { return string(b.b) }

// capture is the text that f writes.
func (r *run) capture(f func()) string {
	out := r.out
	r.out = &builder{run: r}
	r.captures++
	f()
	s := r.out.String()
	r.make(int64(len(s)))
	r.out = out
	r.captures--
	return s
}

// scope holds the variables that one body set. Most set few, for which it has room.
type scope struct {
	outer      *scope
	names      []string
	values     []Value
	firstNames [4]string
	first      [4]Value
}

func (s *scope) set(name string, v Value) {
	for i, n := range s.names {
		if n == name {
			s.values[i] = v
			return
		}
	}
	if s.names == nil {
		s.names, s.values = s.firstNames[:0], s.first[:0]
	}
	s.names, s.values = append(s.names, name), append(s.values, v)
}

func (r *run) lookup(s *scope, name string) Value {
	for ; s != nil; s = s.outer {
		for i, n := range s.names {
			if n == name {
				return s.values[i]
			}
		}
	}
	if v, ok := r.vars.Get(name); ok {
		return v
	}
	if f, ok := globals[name]; ok {
		return function{f, nil}
	}
	return &undefined{name: name}
}

func (r *run) exec(body []stmt, s *scope) jump {
	r.enter()
	defer r.leave()
	for _, x := range body {
		if j := r.execute(x, s); j != onward {
			return j
		}
	}
	return onward
}

func (r *run) execute(x stmt, s *scope) jump {
	r.step(1)
	r.at = x.pos()
	switch x := x.(type) {
	case *text:
		r.out.write(x.text)
	case *output:
		v := r.eval(x.x, s)
		r.at = x.position
		r.out.write(r.str(v))
	case *ifStmt:
		for i, t := range x.tests {
			if r.truth(r.eval(t, s)) {
				return r.exec(x.bodies[i], s)
			}
		}
		return r.exec(x.otherwise, s)
	case *assignment:
		r.assign(x.target, r.eval(x.x, s), s)
	case *assignBlock:
		var v Value = r.capture(func() { r.exec(x.body, &scope{outer: s}) })
		if x.filter != nil {
			v = r.applyFilters(x.filter, v, s)
		}
		r.assign(x.target, v, s)
	case *filterStmt:
		v := Value(r.capture(func() { r.exec(x.body, &scope{outer: s}) }))
		v = r.applyFilters(x.filter, v, s)
		r.out.write(r.str(v))
	case *loopStmt:
		return r.execLoop(x, s)
	case *macroStmt:
		s.set(x.name, &macro{x.name, x.signature, x.body, s})
	case *callStmt:
		caller := &macro{"", x.signature, x.body, s}
		f, a := r.evalCall(x.call, s)
		a.named = append(a.named, named{"caller", caller})
		r.at = x.position
		v := r.call(f, a)
		r.out.write(r.str(v))
	case *scopeStmt:
		inner := &scope{outer: s}
		for i, t := range x.targets {
			r.assign(t, r.eval(x.values[i], s), inner)
		}
		return r.exec(x.body, inner)
	case *generationStmt:
		from := len(r.out.b)
		r.exec(x.body, &scope{outer: s})
		switch to := len(r.out.b); {
		case r.captures > 0:
			r.scattered = true
		case to > from:
			r.make(valueSize)
			r.marked = append(r.marked, Span{from, to})
		}
	case *jumpStmt:
		return x.jump
	default:
		panic(fmt.Sprintf("jinja: statement %T", x))
	}
	return onward
}

func (r *run) assign(target expr, v Value, s *scope) {
	r.at = target.pos()
	switch t := target.(type) {
	case *name:
		if len(s.names) > 1<<16 {
			r.exceeded("variables", 1<<16)
		}
		s.set(t.name, v)
	case *attribute:
		ns, ok := r.lookup(s, t.x.(*name).name).(*namespace)
		if !ok {
			r.fail("cannot assign attribute on non-namespace object")
		}
		r.setAttribute(ns, t.name, v)
	case *sequence:
		values := r.collect(v)
		switch {
		case len(values) < len(t.items):
			r.fail("not enough values to unpack (expected %d, got %d)", len(t.items), len(values))
		case len(values) > len(t.items):
			r.fail("too many values to unpack (expected %d)", len(t.items))
		}
		for i, x := range t.items {
			r.assign(x, values[i], s)
		}
	}
}

func (r *run) setAttribute(ns *namespace, name string, v Value) {
	if name != "" && name[0] == '_' {
		r.fail("Chat templates cannot store underscore-prefixed attributes on a namespace, but got %s. Please rename the attribute.", repr(name))
	}
	r.make(4 * valueSize)
	ns.attrs.Set(name, v)
}
