package jinja

import "strings"

// named is a keyword argument.
type named struct {
	name  string
	value Value
}

// values are the arguments of a call.
type values struct {
	positional []Value
	named      []named
}

// builtin is a filter, a test, a method or a function. self is what it is applied to.
type builtin struct {
	name     string
	params   []string
	required int
	call     func(r *run, self Value, a []Value) Value
	raw      func(r *run, self Value, a values) Value // instead of call: takes any arguments
}

// table makes builtins of rows: a name and its parameters, those that may be left out with a question mark.
type table map[string]func(r *run, self Value, a []Value) Value

func (t table) builtins() map[string]*builtin {
	all := make(map[string]*builtin, len(t))
	for row, f := range t {
		words := strings.Fields(row)
		b := &builtin{name: words[0], call: f}
		for _, w := range words[1:] {
			name, optional := strings.CutSuffix(w, "?")
			b.params = append(b.params, name)
			if !optional {
				b.required++
			}
		}
		all[b.name] = b
	}
	return all
}

// invoke calls a builtin. What was not given is absent{}.
func (r *run) invoke(b *builtin, self Value, a values) Value {
	r.step(1)
	if b.raw != nil {
		return b.raw(r, self, a)
	}
	if len(a.positional) > len(b.params) {
		r.fail("%s() takes at most %d arguments (%d given)", b.name, len(b.params), len(a.positional))
	}
	given := make([]Value, len(b.params))
	for i := range given {
		given[i] = absent{}
	}
	copy(given, a.positional)
next:
	for _, k := range a.named {
		for i, p := range b.params {
			if p != k.name {
				continue
			}
			if given[i] != (absent{}) {
				r.fail("%s() got multiple values for argument '%s'", b.name, p)
			}
			given[i] = k.value
			continue next
		}
		r.fail("%s() got an unexpected keyword argument '%s'", b.name, k.name)
	}
	for i := range b.required {
		if given[i] == (absent{}) {
			r.fail("%s() missing 1 required positional argument: '%s'", b.name, b.params[i])
		}
	}
	return b.call(r, self, given)
}

func given(v Value) bool { return v != absent{} }

// intOr is an argument that is an int.
func (r *run) intOr(v Value, missing int64) int64 {
	if !given(v) {
		return missing
	}
	if u, ok := v.(*undefined); ok {
		r.fail("%s", u.message())
	}
	i, ok := integer(v)
	if !ok {
		r.fail("'%s' object cannot be interpreted as an integer", typeName(v))
	}
	return i
}

// text is an argument that is a string.
func (r *run) text(v Value) string {
	s, ok := stringOf(v)
	if !ok {
		r.fail("must be str, not %s", typeName(v))
	}
	return s
}

func (r *run) textOr(v Value, missing string) string {
	if !given(v) {
		return missing
	}
	return r.text(v)
}

func (r *run) truthOr(v Value, missing bool) bool {
	if !given(v) {
		return missing
	}
	return r.truth(v)
}

// call calls what a template calls.
func (r *run) call(f Value, a values) Value {
	switch f := f.(type) {
	case function:
		return r.invoke(f.builtin, f.self, a)
	case *macro:
		return r.callMacro(f, a)
	case *undefined:
		r.fail("%s", f.message())
	case *loop:
		if f.recurse == nil {
			r.fail("The loop must have the 'recursive' marker to be called recursively.")
		}
		if len(a.positional) != 1 {
			r.fail("loop() takes 1 argument (%d given)", len(a.positional))
		}
		return f.recurse(a.positional[0], f.depth+1)
	case *joiner:
		if !f.used {
			f.used = true
			return ""
		}
		return f.sep
	}
	r.fail("'%s' object is not callable", typeName(f))
	return nil
}

func (r *run) callMacro(m *macro, a values) Value {
	r.enter()
	defer r.leave()
	s := &scope{outer: m.scope}
	rest := a.named
	take := func(name string) (Value, bool) {
		for i, k := range rest {
			if k.name == name {
				rest = append(append([]named{}, rest[:i]...), rest[i+1:]...)
				return k.value, true
			}
		}
		return nil, false
	}
	missing := map[string]bool{}
	for i, p := range m.params {
		if i < len(a.positional) {
			s.set(p, a.positional[i])
		} else if v, ok := take(p); ok {
			s.set(p, v)
		} else {
			missing[p] = true
			s.set(p, &undefined{hint: "parameter " + repr(p) + " was not provided", name: p})
		}
	}
	if m.caller {
		v, ok := take("caller")
		if !ok {
			v = &undefined{hint: "No caller defined", name: "caller"}
		}
		s.set("caller", v)
	}
	switch {
	case m.kwargs:
		d := NewDict()
		for _, k := range rest {
			r.setKey(d, k.name, k.value)
		}
		s.set("kwargs", d)
	case len(rest) > 0 && rest[0].name == "caller":
		r.fail("macro %s was invoked with two values for the special caller argument. This is most likely a bug.", repr(m.name))
	case len(rest) > 0:
		r.fail("macro %s takes no keyword argument %s", repr(m.name), repr(rest[0].name))
	}
	if extra := a.positional[min(len(m.params), len(a.positional)):]; m.varargs {
		s.set("varargs", &Tuple{Items: extra})
	} else if len(extra) > 0 {
		r.fail("macro %s takes not more than %d argument(s)", repr(m.name), len(m.params))
	}
	for i, p := range m.params {
		if !missing[p] {
			continue
		}
		if d := i - len(m.params) + len(m.defaults); d >= 0 {
			s.set(p, r.eval(m.defaults[d], s))
		}
	}
	return r.capture(func() { r.exec(m.body, s) })
}

func (m *macro) attribute(name string) (Value, bool) {
	switch name {
	case "name":
		if m.name == "" {
			return nil, true
		}
		return m.name, true
	case "arguments":
		t := &Tuple{}
		for _, p := range m.params {
			t.Items = append(t.Items, p)
		}
		return t, true
	case "caller":
		return m.caller, true
	case "catch_kwargs":
		return m.kwargs, true
	case "catch_varargs":
		return m.varargs, true
	}
	return nil, false
}
