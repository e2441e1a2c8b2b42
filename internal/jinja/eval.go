package jinja

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"unicode/utf8"
)

func (r *run) eval(x expr, s *scope) Value {
	r.step(1)
	r.enter()
	defer r.leave()
	r.at = x.pos()
	switch x := x.(type) {
	case *literal:
		return x.value
	case *name:
		return r.lookup(s, x.name)
	case *attribute:
		v := r.eval(x.x, s)
		r.at = x.position
		return r.attribute(v, x.name)
	case *element:
		v := r.eval(x.x, s)
		key := r.eval(x.key, s)
		r.at = x.position
		return r.element(v, key)
	case *slice:
		return r.evalSlice(x, s)
	case *invocation:
		f, a := r.evalCall(x, s)
		r.at = x.position
		return r.call(f, a)
	case *filtered:
		return r.applyFilters(x, r.eval(x.x, s), s)
	case *tested:
		v := r.eval(x.x, s)
		a := r.evalArguments(x.arguments, s)
		r.at = x.position
		return r.applyTest(x.test, x.name, v, a)
	case *logical:
		v := r.eval(x.x, s)
		if r.truth(v) == x.or {
			return v
		}
		return r.eval(x.y, s)
	case *unary:
		v := r.eval(x.x, s)
		r.at = x.position
		return r.unary(x.op, v)
	case *binary:
		a := r.eval(x.x, s)
		b := r.eval(x.y, s)
		r.at = x.position
		return r.binary(x.op, a, b)
	case *comparison:
		a := r.eval(x.x, s)
		for i, op := range x.ops {
			b := r.eval(x.ys[i], s)
			r.at = x.position
			if !r.compare(op, a, b) {
				return false
			}
			a = b
		}
		return true
	case *concatenation:
		b := &builder{run: r}
		for _, item := range x.items {
			b.write(r.str(r.eval(item, s)))
		}
		return b.String()
	case *conditional:
		if r.truth(r.eval(x.test, s)) {
			return r.eval(x.then, s)
		}
		if x.other == nil {
			return &undefined{hint: "the inline if-expression evaluated to false and no else section was defined."}
		}
		return r.eval(x.other, s)
	case *sequence:
		r.make(int64(len(x.items)+2) * valueSize)
		items := make([]Value, len(x.items))
		for i, item := range x.items {
			items[i] = r.eval(item, s)
		}
		if x.tuple {
			return &Tuple{Items: items}
		}
		return &List{items}
	case *mapping:
		d := NewDict()
		for i, k := range x.keys {
			key := r.eval(k, s)
			r.setKey(d, key, r.eval(x.values[i], s))
		}
		return d
	}
	panic(fmt.Sprintf("jinja: expression %T", x))
}

// setKey stores under any key.
func (r *run) setKey(d *Dict, key, v Value) {
	r.make(8 * valueSize)
	d.set(r.hash(key), key, v)
}

func (r *run) hash(key Value) any {
	if t, ok := key.(*Tuple); ok {
		r.step(int64(len(t.Items)) * 64)
	}
	if s, ok := stringOf(key); ok {
		r.scan(len(s))
	}
	h, ok := hash(key)
	if !ok {
		r.fail("unhashable type: '%s'", typeName(key))
	}
	return h
}

func (r *run) evalArguments(a arguments, s *scope) values {
	var v values
	for _, x := range a.positional {
		v.positional = append(v.positional, r.eval(x, s))
	}
	for i, x := range a.named {
		v.named = append(v.named, named{a.names[i], r.eval(x, s)})
	}
	if a.star != nil {
		all := r.collect(r.eval(a.star, s))
		r.make(int64(len(all)+len(v.positional)) * valueSize)
		v.positional = append(v.positional, all...)
	}
	if a.doubleStar != nil {
		d, ok := r.eval(a.doubleStar, s).(*Dict)
		if !ok {
			r.fail("argument after ** must be a mapping")
		}
		r.make(int64(d.Len()) * 3 * valueSize)
		for i, k := range d.keys {
			name, ok := k.(string)
			if !ok {
				r.fail("keywords must be strings")
			}
			v.named = append(v.named, named{name, d.values[i]})
		}
	}
	return v
}

func (r *run) evalCall(x *invocation, s *scope) (Value, values) {
	f := r.eval(x.x, s)
	return f, r.evalArguments(x.arguments, s)
}

// applyFilters gives v to a filter, or to the ones before it first: a block names several with bars between.
func (r *run) applyFilters(x *filtered, v Value, s *scope) Value {
	if first, ok := x.x.(*filtered); ok && first.innermost() {
		v = r.applyFilters(first, v, s)
	}
	a := r.evalArguments(x.arguments, s)
	r.at = x.position
	return r.applyFilter(x.filter, x.name, v, a)
}

// innermost tells whether a chain of filters begins with nothing, as that of a block does.
func (x *filtered) innermost() bool {
	for {
		switch y := x.x.(type) {
		case nil:
			return true
		case *filtered:
			x = y
		default:
			return false
		}
	}
}

func (r *run) applyFilter(f *builtin, name string, v Value, a values) Value {
	if f == nil {
		r.fail("No filter named '%s' found.", name)
	}
	return r.invoke(f, v, a)
}

func (r *run) applyTest(f *builtin, name string, v Value, a values) bool {
	if f == nil {
		r.fail("No test named '%s' found.", name)
	}
	return r.truth(r.invoke(f, v, a))
}

// attribute is x.name: what Python has under that name, else what is stored under it.
func (r *run) attribute(v Value, name string) Value {
	if u, ok := v.(*undefined); ok {
		r.fail("%s", u.message())
	}
	if a, ok := r.own(v, name); ok {
		return a
	}
	if d, ok := v.(*Dict); ok {
		if x, ok := d.Get(name); ok {
			return x
		}
	}
	return &undefined{obj: v, name: name, attached: true}
}

// changing are the methods of lists and dicts that change them, which the sandbox does not give out.
var changing = map[string][]string{
	"list": {"append", "clear", "pop", "reverse", "insert", "sort", "extend", "remove"},
	"dict": {"clear", "pop", "popitem", "setdefault", "update"},
}

// own is an attribute that a value has by its type.
func (r *run) own(v Value, name string) (Value, bool) {
	if slices.Contains(changing[typeName(v)], name) || strings.HasPrefix(name, "__") && strings.HasSuffix(name, "__") && len(name) > 4 {
		return &undefined{hint: "access to attribute " + repr(name) + " of " + repr(typeName(v)) + " object is unsafe."}, true
	}
	switch v := v.(type) {
	case *namespace:
		return v.attrs.Get(name)
	case *loop:
		return v.attribute(r, name)
	case *macro:
		return v.attribute(name)
	case *Tuple:
		for i, n := range v.names {
			if n == name {
				return v.Items[i], true
			}
		}
	case *cycler:
		switch name {
		case "current":
			return v.items[v.at%len(v.items)], true
		case "pos":
			return int64(v.at % len(v.items)), true
		}
	}
	if m, ok := r.methods(v)[name]; ok {
		return function{m, v}, true
	}
	return nil, false
}

// element is x[key]: what is stored under the key, else what Python has under that name.
func (r *run) element(v, key Value) Value {
	switch v := v.(type) {
	case *undefined:
		r.fail("%s", v.message())
	case *Dict:
		if s, ok := stringOf(key); ok {
			r.scan(len(s))
		}
		if x, ok := v.get(key); ok {
			return x
		}
	case string, markup:
		s, _ := stringOf(v)
		if i, ok := integer(key); ok {
			r.scan(len(s))
			if c, ok := runeAt(s, i); ok {
				return c
			}
		}
	case rangeOf:
		if i, ok := integer(key); ok {
			if i < 0 {
				i += v.n
			}
			if i >= 0 && i < v.n {
				return v.start + i*v.step
			}
		}
	case *List, *Tuple:
		all, _ := items(v)
		if i, ok := integer(key); ok {
			if i < 0 {
				i += int64(len(all))
			}
			if i >= 0 && i < int64(len(all)) {
				return all[i]
			}
		}
	}
	if name, ok := stringOf(key); ok {
		if a, ok := r.own(v, name); ok {
			return a
		}
	}
	return &undefined{obj: v, name: key, attached: true}
}

func runeAt(s string, i int64) (string, bool) {
	if i < 0 {
		i += int64(runeCount(s))
	}
	if i < 0 || i >= int64(len(s)) {
		return "", false
	}
	for at := range s {
		if i == 0 {
			return firstRune(s[at:]), true
		}
		i--
	}
	return "", false
}

func runeCount(s string) int { return utf8.RuneCountInString(s) }

func firstRune(s string) string {
	_, n := utf8.DecodeRuneInString(s)
	return s[:n]
}

// bounds are those of a slice over n values, as Python clips them.
func (r *run) bounds(start, stop, step Value, n int64) (from, to, by int64) {
	index := func(v Value, missing int64) int64 {
		if v == nil {
			return missing
		}
		i, ok := integer(v)
		if !ok {
			r.fail("slice indices must be integers or None or have an __index__ method")
		}
		if i < 0 {
			i += n
		}
		if by > 0 {
			return min(max(i, 0), n)
		}
		return min(max(i, -1), n-1)
	}
	by = 1
	if step != nil {
		i, ok := integer(step)
		if !ok {
			r.fail("slice indices must be integers or None or have an __index__ method")
		}
		if by = i; by == 0 {
			r.fail("slice step cannot be zero")
		}
		by = min(max(by, -math.MaxInt32), math.MaxInt32)
	}
	if by > 0 {
		return index(start, 0), index(stop, n), by
	}
	return index(start, n-1), index(stop, -1), by
}

func (r *run) evalSlice(x *slice, s *scope) Value {
	v := r.eval(x.x, s)
	part := func(x expr) Value {
		if x == nil {
			return nil
		}
		return r.eval(x, s)
	}
	start, stop, step := part(x.start), part(x.stop), part(x.step)
	r.at = x.position
	return r.slice(v, start, stop, step)
}

func (r *run) slice(v, start, stop, step Value) Value {
	switch v := v.(type) {
	case *undefined:
		r.fail("%s", v.message())
	case string:
		return r.sliceString(v, start, stop, step)
	case markup:
		return markup(r.sliceString(string(v), start, stop, step))
	case *Dict:
		r.fail("unhashable type: 'slice'")
	case rangeOf:
		from, to, by := r.bounds(start, stop, step, v.n)
		return rangeOf{v.start + from*v.step, v.start + to*v.step, v.step * by, count(from, to, by)}
	case *List:
		return &List{r.sliceItems(v.Items, start, stop, step)}
	case *Tuple:
		return &Tuple{Items: r.sliceItems(v.Items, start, stop, step)}
	}
	r.fail("'%s' object is not subscriptable", typeName(v))
	return nil
}

func count(from, to, by int64) int64 {
	if by > 0 {
		return max(0, (to-from+by-1)/by)
	}
	return max(0, (from-to-by-1)/-by)
}

func (r *run) sliceItems(all []Value, start, stop, step Value) []Value {
	from, to, by := r.bounds(start, stop, step, int64(len(all)))
	if by == 1 {
		return all[from:max(from, to):max(from, to)]
	}
	n := count(from, to, by)
	r.make(n * valueSize)
	part := make([]Value, n)
	for i := range part {
		part[i] = all[from+int64(i)*by]
	}
	return part
}

func (r *run) sliceString(s string, start, stop, step Value) string {
	r.scan(len(s))
	from, to, by := r.bounds(start, stop, step, int64(runeCount(s)))
	if by == 1 {
		if from >= to {
			return ""
		}
		begin := offset(s, from)
		return s[begin : begin+offset(s[begin:], to-from)]
	}
	r.make(int64(5 * len(s)))
	runes := []rune(s)
	out := make([]rune, 0, count(from, to, by))
	for i := range count(from, to, by) {
		out = append(out, runes[from+i*by])
	}
	return string(out)
}

// offset is where the n-th character of s begins.
func offset(s string, n int64) int {
	if len(s) == runeCount(s) {
		return int(min(n, int64(len(s))))
	}
	for i := range s {
		if n == 0 {
			return i
		}
		n--
	}
	return len(s)
}
