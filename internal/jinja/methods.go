package jinja

import (
	"strings"
	"unicode"

	"golang.org/x/text/cases"
	"golang.org/x/text/language"
)

// methodsOf are the methods of Python that a value has.
func methodsOf(v Value) map[string]*builtin {
	switch v.(type) {
	case string, markup:
		return stringMethods
	case *List:
		return listMethods
	case *Tuple, rangeOf:
		return tupleMethods
	case *Dict:
		return dictMethods
	case float64:
		return floatMethods
	case *cycler:
		return cyclerMethods
	}
	return nil
}

var cyclerMethods = table{
	"next": func(r *run, self Value, _ []Value) Value {
		c := self.(*cycler)
		c.at++
		return c.items[(c.at-1)%len(c.items)]
	},
	"reset": func(r *run, self Value, _ []Value) Value {
		self.(*cycler).at = 0
		return nil
	},
}.builtins()

var floatMethods = table{
	"is_integer": func(r *run, self Value, _ []Value) Value {
		f := self.(float64)
		return f == float64(int64(f))
	},
}.builtins()

var dictMethods = table{
	"get key default?": func(r *run, self Value, a []Value) Value {
		r.hash(a[0])
		if v, ok := self.(*Dict).get(a[0]); ok {
			return v
		}
		if given(a[1]) {
			return a[1]
		}
		return nil
	},
	"items":  func(r *run, self Value, _ []Value) Value { return &view{"dict_items", self.(*Dict).pairs(r)} },
	"keys":   func(r *run, self Value, _ []Value) Value { return &view{"dict_keys", self.(*Dict).keys} },
	"values": func(r *run, self Value, _ []Value) Value { return &view{"dict_values", self.(*Dict).values} },
	"copy": func(r *run, self Value, _ []Value) Value {
		r.make(int64(self.(*Dict).Len()) * 8 * valueSize)
		return self.(*Dict).Copy()
	},
}.builtins()

func indexOf(r *run, self Value, a []Value) Value {
	all := r.collect(self)
	from, to, _ := r.bounds(orNil(a[1]), orNil(a[2]), nil, int64(len(all)))
	for i := from; i < to; i++ {
		if r.equal(all[i], a[0]) {
			return i
		}
	}
	r.fail("%s is not in list", r.repr(a[0]))
	return nil
}

func countOf(r *run, self Value, a []Value) Value {
	n := int64(0)
	for _, v := range r.collect(self) {
		if r.equal(v, a[0]) {
			n++
		}
	}
	return n
}

func orNil(v Value) Value {
	if given(v) {
		return v
	}
	return nil
}

var tupleMethods = table{"index value start? stop?": indexOf, "count value": countOf}.builtins()

var listMethods = table{
	"index value start? stop?": indexOf,
	"count value":              countOf,
	"copy":                     func(r *run, self Value, _ []Value) Value { return self },
}.builtins()

// stringMethods are those of str. What they make of safe text is safe.
var stringMethods = func() map[string]*builtin {
	all := stringTable.builtins()
	for _, b := range all {
		f := b.call
		b.call = func(r *run, self Value, a []Value) Value {
			s, _ := stringOf(self)
			r.scan(len(s))
			v := f(r, s, a)
			if made, ok := v.(string); ok {
				return r.likeMarkup(self, made)
			}
			return v
		}
	}
	format := func(r *run, self Value, a values) Value {
		s, _ := stringOf(self)
		return r.likeMarkup(self, r.format(s, a, safeText(self)))
	}
	all["format"] = &builtin{name: "format", raw: format}
	all["join"].call = func(r *run, self Value, a []Value) Value {
		sep, _ := stringOf(self)
		return r.likeMarkup(self, r.joinAll(sep, a[0], false, safeText(self)))
	}
	all["format_map"] = &builtin{name: "format_map", params: []string{"mapping"}, required: 1, call: func(r *run, self Value, a []Value) Value {
		d, ok := a[0].(*Dict)
		if !ok {
			r.fail("'%s' object is not a mapping", typeName(a[0]))
		}
		var v values
		for k, x := range d.All {
			v.named = append(v.named, named{k, x})
		}
		return format(r, self, v)
	}}
	return all
}()

// is makes a test of every character, false for an empty string.
func is(f func(rune) bool) func(r *run, self Value, _ []Value) Value {
	return func(r *run, self Value, _ []Value) Value {
		s := self.(string)
		return s != "" && strings.IndexFunc(s, func(c rune) bool { return !f(c) }) < 0
	}
}

func isCased(c rune) bool { return unicode.IsUpper(c) || unicode.IsLower(c) || unicode.IsTitle(c) }

// cased tells whether a string has characters with a case, and all of them the one that f has.
func cased(s string, f func(rune) bool) bool {
	some := false
	for _, c := range s {
		if isCased(c) {
			if !f(c) {
				return false
			}
			some = true
		}
	}
	return some
}

func isAlpha(c rune) bool { return unicode.IsLetter(c) }

func isNumeric(c rune) bool { return unicode.IsNumber(c) }

func isDigit(c rune) bool {
	return unicode.IsDigit(c) || c == '²' || c == '³' || c == '¹' || c >= 0x2070 && c <= 0x2079 || c >= 0x2080 && c <= 0x2089
}

func (r *run) upper(s string) string {
	r.make(int64(len(s)) * 3)
	return cases.Upper(language.Und).String(s)
}

func (r *run) lower(s string) string {
	r.make(int64(len(s)) * 3)
	return cases.Lower(language.Und).String(s)
}

func titleRune(c rune) string {
	if unicode.ToTitle(c) != c || c < 0x80 {
		return string(unicode.ToTitle(c))
	}
	return cases.Title(language.Und, cases.NoLower).String(string(c))
}

func (r *run) capitalize(s string) string {
	if s == "" {
		return ""
	}
	c := firstRune(s)
	return titleRune([]rune(c)[0]) + r.lower(s[len(c):])
}

// strip is what str.strip, lstrip and rstrip do.
func strip(left, right bool) func(r *run, self Value, a []Value) Value {
	return func(r *run, self Value, a []Value) Value {
		s := self.(string)
		in := isSpace
		if given(a[0]) && a[0] != nil {
			chars, ok := stringOf(a[0])
			if !ok {
				r.fail("strip arg must be None or str")
			}
			r.step(int64(len(chars)) / 8 * int64(len(s)) / 8)
			in = func(c rune) bool { return strings.ContainsRune(chars, c) }
		}
		if left {
			s = strings.TrimLeftFunc(s, in)
		}
		if right {
			s = strings.TrimRightFunc(s, in)
		}
		return s
	}
}

// affix is what startswith and endswith do, of one string or a tuple of them.
func affix(method string, has func(s, part string) bool) func(r *run, self Value, a []Value) Value {
	return func(r *run, self Value, a []Value) Value {
		s := r.sliceString(self.(string), orNil(a[1]), orNil(a[2]), nil)
		if t, ok := a[0].(*Tuple); ok {
			for _, v := range t.Items {
				r.step(1)
				if has(s, r.text(v)) {
					return true
				}
			}
			return false
		}
		part, ok := stringOf(a[0])
		if !ok {
			r.fail("%s first arg must be str or a tuple of str, not %s", method, typeName(a[0]))
		}
		return has(s, part)
	}
}

// find is what find, rfind, index and rindex do; missing is what is said where there is none.
func find(index func(s, part string) int, fails bool) func(r *run, self Value, a []Value) Value {
	return func(r *run, self Value, a []Value) Value {
		s := self.(string)
		from, _, _ := r.bounds(orNil(a[1]), nil, nil, int64(runeCount(s)))
		part := r.sliceString(s, orNil(a[1]), orNil(a[2]), nil)
		i := index(part, r.text(a[0]))
		if i < 0 {
			if fails {
				r.fail("substring not found")
			}
			return int64(-1)
		}
		return from + int64(runeCount(part[:i]))
	}
}

func (r *run) strings(parts []string) *List {
	r.make(int64(len(parts)) * 2 * valueSize)
	all := make([]Value, len(parts))
	for i, s := range parts {
		all[i] = s
	}
	return &List{all}
}

// split is str.split; max < 0: all.
func (r *run) split(s string, sep Value, max int64) []string {
	if given(sep) && sep != nil {
		by := r.text(sep)
		if by == "" {
			r.fail("empty separator")
		}
		n := int64(strings.Count(s, by)) + 1
		if max >= 0 {
			n = min(n, max+1)
		}
		r.make(n * valueSize)
		return strings.SplitN(s, by, int(n))
	}
	var parts []string
	r.make(int64(len(s)) / 2 * valueSize)
	for s = strings.TrimLeftFunc(s, isSpace); s != ""; {
		if max == 0 {
			return append(parts, s)
		}
		max--
		n := strings.IndexFunc(s, isSpace)
		if n < 0 {
			return append(parts, s)
		}
		parts = append(parts, s[:n])
		s = strings.TrimLeftFunc(s[n:], isSpace)
	}
	return parts
}

// rsplit is str.rsplit with a bound: the last max places count.
func (r *run) rsplit(s string, sep Value, max int64) []string {
	if max < 0 {
		return r.split(s, sep, -1)
	}
	var parts []string
	by, blank := "", !given(sep) || sep == nil
	if !blank {
		if by = r.text(sep); by == "" {
			r.fail("empty separator")
		}
	}
	r.make(int64(len(s)) / 2 * valueSize)
	if blank {
		s = strings.TrimRightFunc(s, isSpace)
	}
	for ; max > 0; max-- {
		n, size := strings.LastIndex(s, by), len(by)
		if blank {
			if n = strings.LastIndexFunc(s, isSpace); n >= 0 {
				size = len(firstRune(s[n:]))
			}
		}
		if n < 0 {
			break
		}
		parts = append(parts, s[n+size:])
		if s = s[:n]; blank {
			s = strings.TrimRightFunc(s, isSpace)
		}
	}
	if blank && max > 0 {
		s = strings.TrimLeftFunc(s, isSpace)
	}
	if s != "" || !blank {
		parts = append(parts, s)
	}
	for i, j := 0, len(parts)-1; i < j; i, j = i+1, j-1 {
		parts[i], parts[j] = parts[j], parts[i]
	}
	return parts
}

func (r *run) replace(s, from, to string, n int64) string {
	count := int64(strings.Count(s, from))
	if n >= 0 {
		count = min(count, n)
	}
	r.scan(len(s))
	r.make(int64(len(s)) + count*int64(len(to)))
	return strings.Replace(s, from, to, int(count))
}

// pad fills a string up to a width: with fill on the left and on the right of it.
func (r *run) pad(s string, width int64, fill string, left, right bool) string {
	if runeCount(fill) != 1 {
		r.fail("The fill character must be exactly one character long")
	}
	n := width - int64(runeCount(s))
	if n <= 0 {
		return s
	}
	l := n
	switch {
	case left && right:
		l = n/2 + n&width&1
	case right:
		l = 0
	}
	a, b := r.repeatString(fill, l), r.repeatString(fill, n-l)
	r.make(int64(len(a) + len(s) + len(b)))
	return a + s + b
}

func padding(left, right bool) func(r *run, self Value, a []Value) Value {
	return func(r *run, self Value, a []Value) Value {
		return r.pad(self.(string), r.intOr(a[0], 0), r.textOr(a[1], " "), left, right)
	}
}

func partition(r *run, s, sep string, i int, missing []Value) Value {
	if sep == "" {
		r.fail("empty separator")
	}
	if i < 0 {
		return &Tuple{Items: missing}
	}
	return &Tuple{Items: []Value{s[:i], sep, s[i+len(sep):]}}
}

var stringTable = table{
	"upper":      func(r *run, self Value, _ []Value) Value { return r.upper(self.(string)) },
	"lower":      func(r *run, self Value, _ []Value) Value { return r.lower(self.(string)) },
	"casefold":   func(r *run, self Value, _ []Value) Value { return cases.Fold().String(self.(string)) },
	"capitalize": func(r *run, self Value, _ []Value) Value { return r.capitalize(self.(string)) },
	"title": func(r *run, self Value, _ []Value) Value {
		s := self.(string)
		b := &builder{run: r}
		within := false
		for _, c := range s {
			switch {
			case !within:
				b.write(titleRune(c))
			default:
				b.write(strings.ToLower(string(c)))
			}
			within = isCased(c)
		}
		return b.String()
	},
	"swapcase": func(r *run, self Value, _ []Value) Value {
		b := &builder{run: r}
		for _, c := range self.(string) {
			if unicode.IsUpper(c) {
				b.write(strings.ToLower(string(c)))
			} else {
				b.write(cases.Upper(language.Und).String(string(c)))
			}
		}
		return b.String()
	},
	"strip chars?":                  strip(true, true),
	"lstrip chars?":                 strip(true, false),
	"rstrip chars?":                 strip(false, true),
	"startswith prefix start? end?": affix("startswith", strings.HasPrefix),
	"endswith suffix start? end?":   affix("endswith", strings.HasSuffix),
	"find sub start? end?":          find(strings.Index, false),
	"rfind sub start? end?":         find(strings.LastIndex, false),
	"index sub start? end?":         find(strings.Index, true),
	"rindex sub start? end?":        find(strings.LastIndex, true),
	"split sep? maxsplit?": func(r *run, self Value, a []Value) Value {
		return r.strings(r.split(self.(string), a[0], r.intOr(a[1], -1)))
	},
	"rsplit sep? maxsplit?": func(r *run, self Value, a []Value) Value {
		return r.strings(r.rsplit(self.(string), a[0], r.intOr(a[1], -1)))
	},
	"splitlines keepends?": func(r *run, self Value, a []Value) Value {
		r.make(int64(len(self.(string))) * valueSize)
		return r.strings(lines(self.(string), r.truthOr(a[0], false)))
	},
	"replace old new count?": func(r *run, self Value, a []Value) Value {
		for i := range 2 {
			if _, ok := stringOf(a[i]); !ok {
				r.fail("replace() argument %d must be str, not %s", i+1, typeName(a[i]))
			}
		}
		return r.replace(self.(string), r.text(a[0]), r.text(a[1]), r.intOr(a[2], -1))
	},
	"count sub start? end?": func(r *run, self Value, a []Value) Value {
		return int64(strings.Count(r.sliceString(self.(string), orNil(a[1]), orNil(a[2]), nil), r.text(a[0])))
	},
	"join iterable": nil, // stringMethods has it
	"partition sep": func(r *run, self Value, a []Value) Value {
		s, sep := self.(string), r.text(a[0])
		return partition(r, s, sep, strings.Index(s, sep), []Value{s, "", ""})
	},
	"rpartition sep": func(r *run, self Value, a []Value) Value {
		s, sep := self.(string), r.text(a[0])
		return partition(r, s, sep, strings.LastIndex(s, sep), []Value{"", "", s})
	},
	"removeprefix prefix": func(r *run, self Value, a []Value) Value { return strings.TrimPrefix(self.(string), r.text(a[0])) },
	"removesuffix suffix": func(r *run, self Value, a []Value) Value { return strings.TrimSuffix(self.(string), r.text(a[0])) },
	"center width fill?":  padding(true, true),
	"ljust width fill?":   padding(false, true),
	"rjust width fill?":   padding(true, false),
	"zfill width": func(r *run, self Value, a []Value) Value {
		s := self.(string)
		sign := signOf(s)
		return sign + r.pad(s[len(sign):], r.intOr(a[0], 0)-int64(len(sign)), "0", true, false)
	},
	"expandtabs tabsize?": func(r *run, self Value, a []Value) Value {
		size, column := r.intOr(a[0], 8), int64(0)
		b := &builder{run: r}
		for _, c := range self.(string) {
			switch {
			case c == '\t' && size > 0:
				n := size - column%size
				b.write(r.repeatString(" ", n))
				column += n
				continue
			case c == '\t':
				continue
			case c == '\n' || c == '\r':
				column = -1
			}
			b.write(string(c))
			column++
		}
		return b.String()
	},
	"isalpha":   is(isAlpha),
	"isdigit":   is(isDigit),
	"isdecimal": is(unicode.IsDigit),
	"isnumeric": is(isNumeric),
	"isalnum":   is(func(c rune) bool { return isAlpha(c) || isNumeric(c) }),
	"isspace":   is(isSpace),
	"isascii": func(r *run, self Value, _ []Value) Value {
		return strings.IndexFunc(self.(string), func(c rune) bool { return c > 127 }) < 0
	},
	"isprintable": func(r *run, self Value, _ []Value) Value {
		return strings.IndexFunc(self.(string), func(c rune) bool { return !unicode.IsPrint(c) }) < 0
	},
	"isupper": func(r *run, self Value, _ []Value) Value { return cased(self.(string), unicode.IsUpper) },
	"islower": func(r *run, self Value, _ []Value) Value { return cased(self.(string), unicode.IsLower) },
	"isidentifier": func(r *run, self Value, _ []Value) Value {
		s := self.(string)
		return is(isWord)(r, self, nil).(bool) && !unicode.IsDigit([]rune(firstRune(s))[0])
	},
	"istitle": func(r *run, self Value, _ []Value) Value {
		within, some := false, false
		for _, c := range self.(string) {
			if unicode.IsLower(c) != within && isCased(c) {
				return false
			}
			within = isCased(c)
			some = some || within
		}
		return some
	},
}

// joinAll is sep.join(values); any: of what they are as text, as the filter has it; safe: sep is, so that the values are escaped.
func (r *run) joinAll(sep string, v Value, any, safe bool) string {
	next, _ := r.iterate(v)
	b := &builder{run: r}
	for i := 0; ; i++ {
		x, ok := next()
		if !ok {
			return b.String()
		}
		r.step(1)
		if i > 0 {
			b.write(sep)
		}
		s, ok := stringOf(x)
		if !ok {
			if !any {
				r.fail("sequence item %d: expected str instance, %s found", i, typeName(x))
			}
			s = r.str(x)
		}
		if safe && !safeText(x) {
			s = r.escape(s)
		}
		b.write(s)
	}
}
