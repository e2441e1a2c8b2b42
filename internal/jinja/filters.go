package jinja

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

var filters = func() map[string]*builtin {
	all := filterTable.builtins()
	for name, same := range map[string]string{"d": "default", "e": "escape", "count": "length"} {
		all[name] = all[same]
	}
	for name, attr := range map[string]bool{"select": false, "selectattr": true, "reject": false, "rejectattr": true} {
		all[name] = &builtin{name: name, raw: selecting(attr, strings.HasPrefix(name, "select"))}
	}
	all["map"] = &builtin{name: "map", raw: mapFilter}
	all["format"] = &builtin{name: "format", raw: func(r *run, self Value, a values) Value {
		if len(a.positional) > 0 && len(a.named) > 0 {
			r.fail("can't handle positional and keyword arguments at the same time")
		}
		var of Value = &Tuple{Items: a.positional}
		if len(a.named) > 0 {
			of = r.makeDict("format", a)
		}
		return r.likeMarkup(self, r.percent(r.str(self), of, safeText(self)))
	}}
	return all
}()

// defined is v, which must not be undefined.
func (r *run) defined(v Value) Value {
	if u, ok := v.(*undefined); ok {
		r.fail("%s", u.message())
	}
	return v
}

// length is len(v).
func (r *run) length(v Value) int64 {
	switch v := v.(type) {
	case string, markup:
		s, _ := stringOf(v)
		r.scan(len(s))
		return int64(runeCount(s))
	case *Dict:
		return int64(v.Len())
	case *undefined:
		return 0
	case rangeOf:
		return v.n
	case *loop:
		return int64(v.length(r))
	}
	all, ok := items(v)
	if !ok {
		r.fail("object of type '%s' has no len()", typeName(v))
	}
	return int64(len(all))
}

// onText makes a filter of what is done to a string; anything else is turned into one first.
func onText(f func(r *run, s string) string) func(r *run, self Value, _ []Value) Value {
	return func(r *run, self Value, _ []Value) Value {
		s := r.str(self)
		r.scan(len(s))
		return r.likeMarkup(self, f(r, s))
	}
}

// path is an attribute as filters take it: names and numbers with points between.
func path(v Value) []Value {
	s, ok := stringOf(v)
	if !ok {
		if v == nil || !given(v) {
			return nil
		}
		return []Value{v}
	}
	var parts []Value
	for _, p := range strings.Split(s, ".") {
		if n, err := strconv.ParseInt(p, 10, 64); err == nil && n >= 0 && p[0] != '+' {
			parts = append(parts, n)
		} else {
			parts = append(parts, p)
		}
	}
	return parts
}

func (r *run) follow(v Value, path []Value, missing Value) Value {
	for _, p := range path {
		v = r.element(v, p)
		if _, ok := v.(*undefined); ok && given(missing) && missing != nil {
			v = missing
		}
	}
	return v
}

// folded is a key to sort by: strings without their case, unless it matters.
func (r *run) folded(v Value, exact bool) Value {
	if s, ok := stringOf(v); ok && !exact {
		return r.lower(s)
	}
	return v
}

// sort sorts in place, stable, by what key gives.
func (r *run) sort(all []Value, key func(Value) Value, reverse bool) {
	r.make(int64(len(all)) * 3 * valueSize)
	type keyed struct{ key, value Value }
	pairs := make([]keyed, len(all))
	for i, v := range all {
		pairs[i] = keyed{key(v), v}
	}
	slices.SortStableFunc(pairs, func(a, b keyed) int {
		if reverse {
			a, b = b, a
		}
		switch {
		case r.less(a.key, b.key, "<", false):
			return -1
		case r.less(b.key, a.key, "<", false):
			return 1
		}
		return 0
	})
	for i, p := range pairs {
		all[i] = p.value
	}
}

func (r *run) copied(v Value) []Value {
	all := r.collect(v)
	r.make(int64(len(all)) * valueSize)
	return slices.Clone(all)
}

func generator(next func() (Value, bool)) Value { return &iterator{"generator", next} }

// lazily makes a generator that looks at v when it is asked for its first value.
func (r *run) lazily(v Value, next func(from func() (Value, bool)) (Value, bool)) Value {
	var from func() (Value, bool)
	return generator(func() (Value, bool) {
		r.enter()
		defer r.leave()
		if from == nil {
			if !r.truth(v) {
				return nil, false
			}
			from, _ = r.iterate(v)
		}
		return next(from)
	})
}

func mapFilter(r *run, self Value, a values) Value {
	var f func(Value) Value
	if len(a.positional) == 0 && len(a.named) > 0 && slices.ContainsFunc(a.named, func(n named) bool { return n.name == "attribute" }) {
		var p []Value
		var missing Value = absent{}
		for _, n := range a.named {
			switch n.name {
			case "attribute":
				p = path(n.value)
			case "default":
				missing = n.value
			default:
				r.fail("Unexpected keyword argument %s", repr(n.name))
			}
		}
		f = func(v Value) Value { return r.follow(v, p, missing) }
	} else {
		if len(a.positional) == 0 {
			r.fail("map requires a filter argument")
		}
		name := r.str(a.positional[0])
		rest := values{a.positional[1:], a.named}
		f = func(v Value) Value {
			if r.filters[name] == nil {
				r.fail("No filter named '%s'.", name)
			}
			return r.invoke(r.filters[name], v, rest)
		}
	}
	return r.lazily(self, func(from func() (Value, bool)) (Value, bool) {
		v, ok := from()
		if !ok {
			return nil, false
		}
		return f(v), true
	})
}

func selecting(attr, keep bool) func(r *run, self Value, a values) Value {
	return func(r *run, self Value, a values) Value {
		var p []Value
		if attr {
			if len(a.positional) == 0 {
				r.fail("Missing parameter for attribute name")
			}
			p = path(a.positional[0])
			a.positional = a.positional[1:]
		}
		f := r.truth
		if len(a.positional) > 0 {
			name := r.str(a.positional[0])
			rest := values{a.positional[1:], a.named}
			f = func(v Value) bool {
				if r.tests[name] == nil {
					r.fail("No test named '%s'.", name)
				}
				return r.truth(r.invoke(r.tests[name], v, rest))
			}
		}
		return r.lazily(self, func(from func() (Value, bool)) (Value, bool) {
			for {
				r.step(1)
				v, ok := from()
				if !ok || f(r.follow(v, p, absent{})) == keep {
					return v, ok
				}
			}
		})
	}
}

// extreme is min and max.
func extreme(less func(r *run, a, b Value) bool) func(r *run, self Value, a []Value) Value {
	return func(r *run, self Value, a []Value) Value {
		p := path(a[1])
		key := func(v Value) Value { return r.folded(r.follow(v, p, absent{}), r.truthOr(a[0], false)) }
		all := r.collect(self)
		if len(all) == 0 {
			return &undefined{hint: "No aggregated item, sequence was empty."}
		}
		best := all[0]
		for _, v := range all[1:] {
			if less(r, key(v), key(best)) {
				best = v
			}
		}
		return best
	}
}

func groupby(r *run, self Value, a []Value) Value {
	p, exact := path(a[0]), r.truthOr(a[2], false)
	raw := func(v Value) Value { return r.follow(v, p, a[1]) }
	all := r.copied(self)
	r.sort(all, func(v Value) Value { return r.folded(raw(v), exact) }, false)
	groups := &List{}
	for i := 0; i < len(all); {
		key := r.folded(raw(all[i]), exact)
		j := i + 1
		for j < len(all) && r.equal(r.folded(raw(all[j]), exact), key) {
			j++
		}
		r.make(6 * valueSize)
		groups.Items = append(groups.Items, &Tuple{Items: []Value{raw(all[i]), &List{all[i:j:j]}}, names: []string{"grouper", "list"}})
		i = j
	}
	return groups
}

// batch cuts into lists of n; the last is filled up if there is something to fill it with.
func batch(r *run, self Value, a []Value) Value {
	n := r.intOr(a[0], 0)
	return r.lazily(self, func(from func() (Value, bool)) (Value, bool) {
		var part []Value
		for n <= 0 || int64(len(part)) < n {
			v, ok := from()
			if !ok {
				break
			}
			r.make(2 * valueSize)
			part = append(part, v)
		}
		if len(part) == 0 {
			return nil, false
		}
		if fill := a[1]; given(fill) && fill != nil && int64(len(part)) < n {
			r.make(n * valueSize)
			for int64(len(part)) < n {
				part = append(part, fill)
			}
		}
		return &List{part}, true
	})
}

func sliceFilter(r *run, self Value, a []Value) Value {
	n := r.intOr(a[0], 0)
	all := r.collect(self)
	if n == 0 {
		r.fail("integer division or modulo by zero")
	}
	r.make(max(n, 0) * 4 * valueSize)
	size, more := int64(len(all))/n, int64(len(all))%n
	var parts []Value
	at := int64(0)
	for i := range max(n, 0) {
		end := at + size
		if i < more {
			end++
		}
		part := all[at:end:end]
		if fill := a[1]; given(fill) && fill != nil && i >= more {
			part = r.joinItems(part, []Value{fill})
		}
		parts = append(parts, &List{part})
		at = end
	}
	return generator(over(parts))
}

func unique(r *run, self Value, a []Value) Value {
	exact, p := r.truthOr(a[0], false), path(a[1])
	seen := NewDict()
	return r.lazily(self, func(from func() (Value, bool)) (Value, bool) {
		for {
			v, ok := from()
			if !ok {
				return nil, false
			}
			key := r.folded(r.follow(v, p, absent{}), exact)
			r.hash(key)
			if _, old := seen.get(key); !old {
				r.setKey(seen, key, true)
				return v, true
			}
			r.step(1)
		}
	})
}

var filterTable = table{
	"tojson ensure_ascii? indent? separators? sort_keys?": toJSON,
	"abs": func(r *run, self Value, _ []Value) Value {
		switch v := r.defined(self).(type) {
		case float64:
			return math.Abs(v)
		case int64, bool:
			if i, _ := integer(v); i < 0 {
				return r.subtract(0, i)
			} else {
				return i
			}
		}
		r.fail("bad operand type for abs(): '%s'", typeName(self))
		return nil
	},
	"attr name": func(r *run, self Value, a []Value) Value {
		name := r.text(a[0])
		if v, ok := r.own(r.defined(self), name); ok {
			return v
		}
		return &undefined{obj: self, name: name, attached: true}
	},
	"batch linecount fill_with?": batch,
	"capitalize":                 onText(func(r *run, s string) string { return r.capitalize(s) }),
	"lower":                      onText(func(r *run, s string) string { return r.lower(s) }),
	"upper":                      onText(func(r *run, s string) string { return r.upper(s) }),
	"title": onText(func(r *run, s string) string {
		b := &builder{run: r}
		start := true
		for _, c := range s {
			if start {
				b.write(r.upper(string(c)))
			} else {
				b.write(strings.ToLower(string(c)))
			}
			start = isSpace(c) || strings.ContainsRune("-({[<", c)
		}
		return b.String()
	}),
	"center width?": func(r *run, self Value, a []Value) Value {
		return r.likeMarkup(self, r.pad(r.str(self), r.intOr(a[0], 80), " ", true, true))
	},
	"trim chars?": func(r *run, self Value, a []Value) Value {
		s := r.str(self)
		r.scan(len(s))
		return r.likeMarkup(self, strip(true, true)(r, s, a).(string))
	},
	"default default_value? boolean?": func(r *run, self Value, a []Value) Value {
		if _, ok := self.(*undefined); ok || r.truthOr(a[1], false) && !r.truth(self) {
			if given(a[0]) {
				return a[0]
			}
			return ""
		}
		return self
	},
	"dictsort case_sensitive? by? reverse?": func(r *run, self Value, a []Value) Value {
		by := map[string]int{"key": 0, "value": 1}
		i, ok := by[r.textOr(a[1], "key")]
		if !ok {
			r.fail(`You can only sort by either "key" or "value"`)
		}
		d, ok := r.defined(self).(*Dict)
		if !ok {
			r.fail("'%s' object has no attribute 'items'", typeName(self))
		}
		all := d.pairs(r)
		r.sort(all, func(p Value) Value { return r.folded(p.(*Tuple).Items[i], r.truthOr(a[0], false)) }, r.truthOr(a[2], false))
		return &List{all}
	},
	"escape": func(r *run, self Value, _ []Value) Value {
		if m, ok := self.(markup); ok {
			return m
		}
		return markup(r.escape(r.str(self)))
	},
	"forceescape": func(r *run, self Value, _ []Value) Value { return markup(r.escape(r.str(self))) },
	"safe":        func(r *run, self Value, _ []Value) Value { return markup(r.str(self)) },
	"string": func(r *run, self Value, _ []Value) Value {
		if m, ok := self.(markup); ok {
			return m
		}
		return r.str(self)
	},
	"filesizeformat binary?": func(r *run, self Value, a []Value) Value {
		n, base, names := toFloat(r, self, []Value{absent{}}).(float64), 1000.0, "kB MB GB TB PB EB ZB YB"
		if r.truthOr(a[0], false) {
			base, names = 1024, "KiB MiB GiB TiB PiB EiB ZiB YiB"
		}
		if n == 1 {
			return "1 Byte"
		}
		if n < base {
			return strconv.FormatInt(int64(n), 10) + " Bytes"
		}
		unit := base
		var name string
		for _, name = range strings.Fields(names) {
			unit *= base
			if n < unit {
				break
			}
		}
		return strconv.FormatFloat(base*n/unit, 'f', 1, 64) + " " + name
	},
	"first": func(r *run, self Value, _ []Value) Value {
		next, _ := r.iterate(self)
		if v, ok := next(); ok {
			return v
		}
		return &undefined{hint: "No first item, sequence was empty."}
	},
	"last": func(r *run, self Value, _ []Value) Value {
		switch v := self.(type) {
		case *iterator:
			r.fail("'%s' object is not reversible", v.name)
		case string, markup, rangeOf:
			if r.truth(v) {
				return r.element(v, int64(-1))
			}
		}
		if all := r.collect(self); len(all) > 0 {
			return all[len(all)-1]
		}
		return &undefined{hint: "No last item, sequence was empty."}
	},
	"float default?":                             toFloat,
	"int default? base?":                         toInt,
	"round precision? method?":                   round,
	"groupby attribute default? case_sensitive?": groupby,
	"indent width? first? blank?":                indent,
	"truncate length? killwords? end? leeway?":   truncate,
	"slice slices fill_with?":                    sliceFilter,
	"unique case_sensitive? attribute?":          unique,
	"min case_sensitive? attribute?":             extreme(func(r *run, a, b Value) bool { return r.less(a, b, "<", false) }),
	"max case_sensitive? attribute?":             extreme(func(r *run, a, b Value) bool { return r.less(b, a, ">", true) }),
	"sort reverse? case_sensitive? attribute?": func(r *run, self Value, a []Value) Value {
		all := r.copied(self)
		var paths [][]Value
		if s, ok := stringOf(a[2]); ok {
			for _, p := range strings.Split(s, ",") {
				paths = append(paths, path(p))
			}
		} else {
			paths = [][]Value{path(a[2])}
		}
		r.sort(all, func(v Value) Value {
			r.make(int64(len(paths)+2) * valueSize)
			key := &List{make([]Value, len(paths))}
			for i, p := range paths {
				key.Items[i] = r.folded(r.follow(v, p, absent{}), r.truthOr(a[1], false))
			}
			return key
		}, r.truthOr(a[0], false))
		return &List{all}
	},
	"items": func(r *run, self Value, _ []Value) Value {
		var next func() (Value, bool)
		return generator(func() (Value, bool) {
			if _, none := self.(*undefined); none {
				return nil, false
			}
			if next == nil {
				d, ok := self.(*Dict)
				if !ok {
					r.fail("Can only get item pairs from a mapping.")
				}
				next = over(d.pairs(r))
			}
			return next()
		})
	},
	"join d? attribute?": func(r *run, self Value, a []Value) Value {
		sep := ""
		if given(a[0]) {
			sep = r.str(a[0])
		}
		if p := path(a[1]); p != nil {
			next, _ := r.iterate(self)
			self = generator(func() (Value, bool) {
				v, ok := next()
				if !ok {
					return nil, false
				}
				return r.follow(v, p, absent{}), true
			})
		}
		return r.joinAll(sep, self, true, false)
	},
	"length": func(r *run, self Value, _ []Value) Value { return r.length(self) },
	"list":   func(r *run, self Value, _ []Value) Value { return &List{r.collect(self)} },
	"replace old new count?": func(r *run, self Value, a []Value) Value {
		n := int64(-1)
		if given(a[2]) && a[2] != nil {
			n = r.intOr(a[2], -1)
		}
		return r.replace(r.str(self), r.str(a[0]), r.str(a[1]), n)
	},
	"reverse": func(r *run, self Value, _ []Value) Value {
		if s, ok := stringOf(self); ok {
			return r.likeMarkup(self, r.sliceString(s, nil, nil, int64(-1)))
		}
		all := r.copied(self)
		slices.Reverse(all)
		if _, ok := self.(*iterator); ok {
			return &List{all}
		}
		return &iterator{"list_reverseiterator", over(all)}
	},
	"sum attribute? start?": func(r *run, self Value, a []Value) Value {
		var sum Value = int64(0)
		if given(a[1]) {
			sum = a[1]
		}
		if _, ok := stringOf(sum); ok {
			r.fail("sum() can't sum strings [use ''.join(seq) instead]")
		}
		p := path(a[0])
		next, _ := r.iterate(self)
		for {
			v, ok := next()
			if !ok {
				return sum
			}
			sum = r.binary("+", sum, r.follow(v, p, absent{}))
			r.step(1)
		}
	},
	"striptags": onText(func(r *run, s string) string {
		r.make(int64(len(s)) * 2)
		b := &builder{run: r}
		for s != "" {
			from := strings.IndexByte(s, '<')
			if from < 0 {
				break
			}
			to := strings.IndexByte(s[from:], '>')
			if comment := strings.HasPrefix(s[from:], "<!--"); comment {
				to = strings.Index(s[from:], "-->") + 2
			}
			if to < 2 && to != 1 {
				break
			}
			b.write(s[:from])
			s = s[from+to+1:]
		}
		b.write(s)
		return strings.Join(strings.FieldsFunc(b.String(), isSpace), " ")
	}),
	"urlencode": func(r *run, self Value, _ []Value) Value {
		if _, ok := self.(*Dict); !ok {
			if _, ok := stringOf(self); ok {
				return r.quoteURL(r.str(self), "/")
			}
			if _, ok := items(self); !ok {
				return r.quoteURL(r.str(self), "/")
			}
		}
		pairs := r.collect(self)
		if d, ok := self.(*Dict); ok {
			pairs = d.pairs(r)
		}
		b := &builder{run: r}
		for i, p := range pairs {
			two := r.collect(p)
			if len(two) != 2 {
				r.fail("not enough values to unpack (expected 2, got %d)", len(two))
			}
			if i > 0 {
				b.write("&")
			}
			b.write(r.quoteURL(r.str(two[0]), "+") + "=" + r.quoteURL(r.str(two[1]), "+"))
		}
		return b.String()
	},
	"wordcount": func(r *run, self Value, _ []Value) Value {
		s := r.str(self)
		r.scan(len(s))
		n, within := int64(0), false
		for _, c := range s {
			word := c == '_' || unicode.IsLetter(c) || unicode.IsNumber(c)
			if word && !within {
				n++
			}
			within = word
		}
		return n
	},
}
