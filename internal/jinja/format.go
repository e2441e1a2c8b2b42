package jinja

import (
	"math"
	"strconv"
	"strings"
)

// maxPrecision is of how many digits a number is written at most.
const maxPrecision = 1000

// spec is how one value is formatted.
type spec struct {
	fill      string
	align     byte // < > = ^ or 0
	sign      byte // + - or blank
	alternate bool
	zero      bool
	width     int64
	grouping  byte  // , or _
	precision int64 // -1: not said
	verb      byte
}

// percent is s % v.
//
// Of safe text, what is put in is escaped.
func (r *run) percent(s string, v Value, safe bool) string {
	r.scan(len(s))
	b := &builder{run: r}
	var args []Value
	d, isDict := v.(*Dict)
	if t, ok := v.(*Tuple); ok {
		args = t.Items
	} else {
		args = []Value{v}
	}
	used, byName := 0, false
	next := func() Value {
		if used >= len(args) {
			r.fail("not enough arguments for format string")
		}
		used++
		return args[used-1]
	}
	for {
		n := strings.IndexByte(s, '%')
		if n < 0 {
			b.write(s)
			break
		}
		b.write(s[:n])
		if s = s[n+1:]; strings.HasPrefix(s, "%") {
			b.write("%")
			s = s[1:]
			continue
		}
		f := spec{precision: -1}
		var of Value = absent{}
		if strings.HasPrefix(s, "(") {
			end := strings.IndexByte(s, ')')
			if end < 0 {
				r.fail("incomplete format key")
			}
			if !isDict {
				r.fail("format requires a mapping")
			}
			x, ok := d.Get(s[1:end])
			if !ok {
				r.fail("%s", repr(s[1:end]))
			}
			of, byName, s = x, true, s[end+1:]
		}
	flags:
		for ; s != ""; s = s[1:] {
			switch s[0] {
			case '-':
				f.align = '<'
			case '+':
				f.sign = '+'
			case ' ':
				if f.sign == 0 {
					f.sign = ' '
				}
			case '#':
				f.alternate = true
			case '0':
				f.zero = true
			default:
				break flags
			}
		}
		count := func() int64 {
			if strings.HasPrefix(s, "*") {
				s = s[1:]
				return r.intOr(next(), 0)
			}
			var n int64
			n, s = r.width(s)
			return n
		}
		if f.width = count(); f.width < 0 {
			f.align, f.width = '<', -f.width
		}
		if strings.HasPrefix(s, ".") {
			s = s[1:]
			f.precision = max(count(), 0)
		}
		s = strings.TrimLeft(s, "hlL")
		if s == "" {
			r.fail("incomplete format")
		}
		f.verb = s[0]
		c := firstRune(s)
		s = s[len(c):]
		if !given(of) {
			of = next()
		}
		if _, isText := of.(string); isText && safe {
			of = markup(r.escape(of.(string)))
		}
		b.write(r.percentOne(f, of, c))
	}
	if used < len(args) && !byName && !isDict {
		if _, isTuple := v.(*Tuple); isTuple || !sequenceLike(v) {
			r.fail("not all arguments converted during string formatting")
		}
	}
	return b.String()
}

// sequenceLike tells whether Python takes a value it did not use for a mapping of names.
func sequenceLike(v Value) bool {
	switch v.(type) {
	case *List, rangeOf, *undefined:
		return true
	}
	return false
}

func (r *run) percentOne(f spec, v Value, verb string) string {
	if f.align == '<' {
		f.zero = false
	}
	f.fill = " "
	switch f.verb {
	case 's', 'r', 'a':
		s := r.str(v)
		if f.verb != 's' {
			s = r.repr(v)
		}
		if f.precision >= 0 {
			s = r.sliceString(s, nil, f.precision, nil)
		}
		return r.pad(s, f.width, " ", f.align != '<', f.align == '<')
	case 'c':
		s, ok := stringOf(v)
		if i, isInt := integer(v); isInt && i >= 0 && i <= 0x10ffff {
			s, ok = string(rune(i)), true
		}
		if !ok || runeCount(s) != 1 {
			r.fail("%%c requires int or char")
		}
		return r.pad(s, f.width, " ", f.align != '<', f.align == '<')
	case 'd', 'i', 'u', 'x', 'X', 'o':
		n, ok := integer(v)
		if x, isFloat := v.(float64); isFloat && strings.IndexByte("diu", f.verb) >= 0 && math.Abs(x) < 1<<63 {
			n, ok = int64(x), true
		}
		if !ok {
			if strings.IndexByte("diu", f.verb) >= 0 {
				r.fail("%%%s format: a real number is required, not %s", verb, typeName(v))
			}
			r.fail("%%%s format: an integer is required, not %s", verb, typeName(v))
		}
		if strings.IndexByte("iu", f.verb) >= 0 {
			f.verb = 'd'
		}
		digits := f.integer(n)
		if p := f.precision - int64(len(digits)); f.precision >= 0 && p > 0 {
			digits = r.repeatString("0", p) + digits
		}
		return r.number(f, n < 0, f.prefix(), digits)
	case 'e', 'E', 'f', 'F', 'g', 'G':
		x, ok := number(v)
		if !ok {
			r.fail("must be real number, not %s", typeName(v))
		}
		return r.number(f, math.Signbit(x) && !math.IsNaN(x), "", r.float(f, math.Abs(x)))
	}
	r.fail("unsupported format character '%s' (0x%x)", verb, []rune(verb)[0])
	return ""
}

// width reads digits off the front of a string.
func (r *run) width(s string) (int64, string) {
	n := 0
	for n < len(s) && s[n] >= '0' && s[n] <= '9' {
		n++
	}
	if n == 0 {
		return 0, s
	}
	w, err := strconv.ParseInt(s[:n], 10, 64)
	if err != nil {
		r.fail("width too big")
	}
	return w, s[n:]
}

func (f spec) prefix() string {
	if f.alternate && strings.IndexByte("xXobB", f.verb) >= 0 {
		return "0" + string(f.verb)
	}
	return ""
}

// integer is the digits of a number without its sign.
func (f spec) integer(n int64) string {
	base := map[byte]int{'x': 16, 'X': 16, 'o': 8, 'b': 2}[f.verb]
	if base == 0 {
		base = 10
	}
	u := uint64(n)
	if n < 0 {
		u = -u
	}
	s := strconv.FormatUint(u, base)
	if f.verb == 'X' {
		s = strings.ToUpper(s)
	}
	return s
}

// float is the digits of a number that is not negative.
func (r *run) float(f spec, x float64) string {
	if f.precision > maxPrecision {
		r.fail("a precision of %d digits; at most %d are written", f.precision, maxPrecision)
	}
	p := int(f.precision)
	if p < 0 {
		p = 6
	}
	upper := f.verb >= 'A' && f.verb <= 'Z'
	var s string
	switch {
	case math.IsInf(x, 0):
		s = "inf"
	case math.IsNaN(x):
		s = "nan"
	default:
		switch f.verb | 0x20 {
		case 'f':
			s = strconv.FormatFloat(x, 'f', p, 64)
		case 'e':
			s = strconv.FormatFloat(x, 'e', p, 64)
		case '%':
			s = strconv.FormatFloat(x*100, 'f', p, 64) + "%"
		default:
			s = general(x, max(p, 1), f.alternate)
		}
	}
	if upper {
		s = strings.ToUpper(s)
	}
	return s
}

// general is C's %g: p digits, an exponent where it is small or large, and no zeros at the end.
func general(x float64, p int, keep bool) string {
	e := strconv.FormatFloat(x, 'e', p-1, 64)
	mantissa, exponent, _ := strings.Cut(e, "e")
	n, _ := strconv.Atoi(exponent)
	trim := func(s string) string {
		if keep || !strings.Contains(s, ".") {
			return s
		}
		return strings.TrimRight(strings.TrimRight(s, "0"), ".")
	}
	if n < -4 || n >= p {
		return trim(mantissa) + "e" + exponent
	}
	return trim(strconv.FormatFloat(x, 'f', p-1-n, 64))
}

// number puts sign, prefix, padding and digits together.
func (r *run) number(f spec, negative bool, prefix, digits string) string {
	switch {
	case negative:
		prefix = "-" + prefix
	case f.sign == '+' || f.sign == ' ':
		prefix = string(f.sign) + prefix
	}
	if f.grouping != 0 {
		digits = grouped(digits, f.grouping, f.verb)
	}
	if f.zero && f.align == 0 || f.align == '=' {
		fill := f.fill
		if f.zero {
			fill = "0"
		}
		digits = r.pad(digits, f.width-int64(len(prefix)), fill, true, false)
		return prefix + digits
	}
	return r.pad(prefix+digits, f.width, f.fill, f.align != '<', f.align == '<' || f.align == '^')
}

func grouped(s string, by, verb byte) string {
	n := len(s)
	if i := strings.IndexAny(s, ".e%"); i >= 0 && verb != 'x' && verb != 'X' {
		n = i
	}
	size := 3
	if strings.IndexByte("xXob", verb) >= 0 {
		size = 4
	}
	var b strings.Builder
	for i := range n {
		if i > 0 && (n-i)%size == 0 {
			b.WriteByte(by)
		}
		b.WriteByte(s[i])
	}
	return b.String() + s[n:]
}

// format is str.format.
func (r *run) format(s string, a values, safe bool) string {
	r.scan(len(s))
	f := &formatter{run: r, args: a, safe: safe}
	b := &builder{run: r}
	f.into(b, s, 2)
	return b.String()
}

// formatter fills in one format string.
type formatter struct {
	*run
	args         values
	auto         int  // the next number of a field without one
	manual, safe bool // fields have numbers; what is put in is escaped
}

func (r *formatter) into(b *builder, s string, depth int) {
	if depth < 0 {
		r.fail("Max string recursion exceeded")
	}
	for s != "" {
		n := strings.IndexAny(s, "{}")
		if n < 0 {
			b.write(s)
			return
		}
		b.write(s[:n])
		if strings.HasPrefix(s[n+1:], s[n:n+1]) {
			b.write(s[n : n+1])
			s = s[n+2:]
			continue
		}
		if s[n] == '}' {
			r.fail("Single '}' encountered in format string")
		}
		s = s[n+1:]
		end, open := -1, 1
		for i := 0; i < len(s) && open > 0; i++ {
			switch s[i] {
			case '{':
				open++
			case '}':
				if open--; open == 0 {
					end = i
				}
			}
		}
		if end < 0 {
			r.fail("expected '}' before end of string")
		}
		field := s[:end]
		s = s[end+1:]
		field, form, _ := strings.Cut(field, ":")
		field, conversion, converted := strings.Cut(field, "!")
		v := r.field(field)
		if converted {
			switch conversion {
			case "r", "a":
				v = r.repr(v)
			case "s":
				v = r.str(v)
			default:
				r.fail("Unknown conversion specifier %s", conversion)
			}
		}
		inner := &builder{run: r.run}
		r.into(inner, form, depth-1)
		text := r.formatOne(v, inner.String())
		if _, safe := v.(markup); r.safe && !safe {
			text = r.escape(text)
		}
		b.write(text)
	}
}

// field is the value that a replacement field names: a number or a name, then attributes and elements.
func (r *formatter) field(s string) Value {
	n := strings.IndexAny(s, ".[")
	if n < 0 {
		n = len(s)
	}
	first, rest := s[:n], s[n:]
	var v Value = absent{}
	if s == "" {
		if r.manual {
			r.fail("cannot switch from manual field specification to automatic field numbering")
		}
		first = strconv.Itoa(r.auto)
		r.auto++
	} else if _, err := strconv.Atoi(s); err == nil {
		if r.auto > 0 {
			r.fail("cannot switch from manual field specification to automatic field numbering")
		}
		r.manual = true
	}
	if i, err := strconv.Atoi(first); err == nil {
		if i < 0 || i >= len(r.args.positional) {
			r.fail("tuple index out of range")
		}
		v = r.args.positional[i]
	} else {
		for _, k := range r.args.named {
			if k.name == first {
				v = k.value
			}
		}
	}
	if !given(v) {
		r.fail("%s", repr(first))
	}
	for rest != "" {
		r.step(1)
		if rest[0] == '.' {
			n := strings.IndexAny(rest[1:], ".[")
			if n < 0 {
				n = len(rest) - 1
			}
			v, rest = r.attribute(v, rest[1:1+n]), rest[1+n:]
			continue
		}
		n := strings.IndexByte(rest, ']')
		if rest[0] != '[' || n < 0 {
			r.fail("Missing ']' in format string")
		}
		var key Value = rest[1:n]
		if i, err := strconv.ParseInt(rest[1:n], 10, 64); err == nil {
			key = i
		}
		v, rest = r.element(v, key), rest[n+1:]
	}
	return v
}

// formatOne is format(v, form).
func (r *run) formatOne(v Value, form string) string {
	if form == "" {
		return r.str(v)
	}
	f := spec{precision: -1}
	s := form
	if c := firstRune(s); len(s) > len(c) && strings.IndexByte("<>=^", s[len(c)]) >= 0 {
		f.fill, f.align, s = c, s[len(c)], s[len(c)+1:]
	} else if strings.IndexByte("<>=^", s[0]) >= 0 {
		f.align, s = s[0], s[1:]
	}
	take := func(set string) byte {
		if s != "" && strings.IndexByte(set, s[0]) >= 0 {
			c := s[0]
			s = s[1:]
			return c
		}
		return 0
	}
	f.sign = take("+- ")
	f.alternate = take("#") != 0
	if f.zero = take("0") != 0; f.zero && f.fill == "" {
		f.fill = "0"
	}
	if f.fill == "" {
		f.fill = " "
	}
	f.width, s = r.width(s)
	f.grouping = take(",_")
	if take(".") != 0 {
		before := s
		if f.precision, s = r.width(s); s == before {
			r.fail("Format specifier missing precision")
		}
	}
	f.verb = take("bcdeEfFgGnosxX%")
	if s != "" {
		r.fail("Invalid format specifier '%s' for object of type '%s'", form, typeName(v))
	}
	if t, ok := stringOf(v); ok {
		if f.verb != 0 && f.verb != 's' {
			r.fail("Unknown format code '%c' for object of type 'str'", f.verb)
		}
		if f.sign != 0 {
			r.fail("Sign not allowed in string format specifier")
		}
		if f.align == '=' {
			r.fail("'=' alignment not allowed in string format specifier")
		}
		if f.precision >= 0 {
			t = r.sliceString(t, nil, f.precision, nil)
		}
		fill := f.fill
		if f.zero && f.align == 0 {
			fill = "0"
		}
		return r.centered(t, f, fill, '<')
	}
	n, isInt := integer(v)
	if _, isBool := v.(bool); isBool && f.verb == 0 {
		f.verb = 'd'
	}
	switch {
	case isInt && (f.verb == 0 || strings.IndexByte("bdnoxX", f.verb) >= 0):
		if f.precision >= 0 {
			r.fail("Precision not allowed in integer format specifier")
		}
		return r.aligned(f, n < 0, f.prefix(), f.integer(n))
	case isInt && f.verb == 'c':
		return r.centered(string(rune(n)), f, f.fill, '<')
	}
	x, ok := number(v)
	if !ok {
		r.fail("unsupported format string passed to %s.__format__", typeName(v))
	}
	if f.verb == 'd' || f.verb == 's' || f.verb == 'b' || f.verb == 'o' || f.verb == 'x' || f.verb == 'X' || f.verb == 'c' {
		r.fail("Unknown format code '%c' for object of type '%s'", f.verb, typeName(v))
	}
	var digits string
	switch {
	case f.verb == 0 && f.precision < 0:
		digits = formatFloat(math.Abs(x))
	case f.verb == 0:
		if digits = r.float(f, math.Abs(x)); !strings.ContainsAny(digits, ".en") {
			digits += ".0"
		}
	case f.verb == 'n':
		f.verb = 'g'
		digits = r.float(f, math.Abs(x))
	default:
		digits = r.float(f, math.Abs(x))
	}
	return r.aligned(f, math.Signbit(x) && !math.IsNaN(x), "", digits)
}

func (r *run) aligned(f spec, negative bool, prefix, digits string) string {
	if f.align != '^' {
		return r.number(f, negative, prefix, digits)
	}
	g := f
	g.align, g.width, g.zero = '<', 0, false
	return r.centered(r.number(g, negative, prefix, digits), f, f.fill, '>')
}

// centered pads as align says; an odd blank of ^ goes to the right.
func (r *run) centered(s string, f spec, fill string, align byte) string {
	if f.align != 0 {
		align = f.align
	}
	if align != '^' {
		return r.pad(s, f.width, fill, align != '<', align == '<')
	}
	n := max(f.width-int64(runeCount(s)), 0)
	return r.repeatString(fill, n/2) + s + r.repeatString(fill, n-n/2)
}
