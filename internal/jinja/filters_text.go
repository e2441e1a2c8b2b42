package jinja

import (
	"math"
	"strconv"
	"strings"
)

// parseInt is int(s, base).
func parseInt(s string, base int) (int64, bool) {
	s = strings.TrimFunc(s, isSpace)
	sign := signOf(s)
	digits := s[len(sign):]
	if digits == "" || digits[0] == '-' || digits[0] == '+' {
		return 0, false
	}
	if len(digits) > 2 && digits[0] == '0' {
		if b := map[byte]int{'x': 16, 'o': 8, 'b': 2}[digits[1]|0x20]; b != 0 && (base == b || base == 0) {
			digits, base = digits[2:], b
		}
	}
	digits, ok := ungrouped(digits)
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseInt(sign+digits, base, 64)
	return n, err == nil
}

// ungrouped takes the underscores out of a number, of which there may be one between two digits.
func ungrouped(s string) (string, bool) {
	if strings.Contains(s, "__") || strings.HasPrefix(s, "_") || strings.HasSuffix(s, "_") {
		return "", false
	}
	return strings.ReplaceAll(s, "_", ""), true
}

func parseFloat(s string) (float64, bool) {
	s, ok := ungrouped(strings.TrimFunc(s, isSpace))
	if !ok || strings.ContainsAny(s, "xXpP") {
		return 0, false
	}
	f, err := strconv.ParseFloat(s, 64)
	return f, err == nil || math.IsInf(f, 0)
}

func toInt(r *run, self Value, a []Value) Value {
	missing := a[0]
	if !given(missing) {
		missing = int64(0)
	}
	r.defined(self)
	if i, ok := integer(self); ok {
		return i
	}
	f, ok := self.(float64)
	if s, isText := stringOf(self); isText {
		base := r.intOr(a[1], 10)
		if base < 0 || base == 1 || base > 36 {
			return missing
		}
		r.step(int64(len(s)))
		if i, ok := parseInt(s, int(base)); ok {
			return i
		}
		f, ok = parseFloat(s)
	}
	if !ok || math.IsNaN(f) || math.IsInf(f, 0) {
		return missing
	}
	if math.Abs(f) >= 1<<63 {
		r.overflow()
	}
	return int64(f)
}

func toFloat(r *run, self Value, a []Value) Value {
	r.defined(self)
	if f, ok := number(self); ok {
		return f
	}
	if s, ok := stringOf(self); ok {
		r.step(int64(len(s)))
		if f, ok := parseFloat(s); ok {
			return f
		}
	}
	if given(a[0]) {
		return a[0]
	}
	return 0.0
}

func round(r *run, self Value, a []Value) Value {
	precision, method := r.intOr(a[0], 0), r.textOr(a[1], "common")
	f, ok := number(r.defined(self))
	if !ok {
		r.fail("type %s doesn't define __round__ method", typeName(self))
	}
	_, exact := integer(self)
	switch method {
	case "common":
		if exact && precision >= 0 {
			return self
		}
		if precision >= 0 && precision < 330 {
			f, _ = strconv.ParseFloat(strconv.FormatFloat(f, 'f', int(precision), 64), 64)
		} else if precision < 0 {
			p := math.Pow(10, float64(-precision))
			f = math.RoundToEven(f/p) * p
		}
		if exact {
			return int64(f)
		}
		return f
	case "ceil", "floor":
		p := math.Pow(10, float64(precision))
		if method == "ceil" {
			return math.Ceil(f*p) / p
		}
		return math.Floor(f*p) / p
	}
	r.fail("method must be common, ceil or floor")
	return nil
}

func indent(r *run, self Value, a []Value) Value {
	s, ok := stringOf(r.defined(self))
	if !ok {
		r.unsupported("+=", self, "")
	}
	by, isText := "", false
	if given(a[0]) {
		by, isText = stringOf(a[0])
	}
	if !isText {
		by = r.repeatString(" ", r.intOr(a[0], 4))
	}
	first, blank := r.truthOr(a[1], false), r.truthOr(a[2], false)
	r.make(int64(len(s)) * valueSize)
	b := &builder{run: r}
	for i, line := range lines(s+"\n", false) {
		if i > 0 {
			b.write("\n")
		}
		if i == 0 && first || i > 0 && (blank || line != "") {
			b.write(by)
		}
		b.write(line)
	}
	return r.likeMarkup(self, b.String())
}

func truncate(r *run, self Value, a []Value) Value {
	s := r.text(r.defined(self))
	length, end, leeway := r.intOr(a[0], 255), r.textOr(a[2], "..."), int64(5)
	if given(a[3]) && a[3] != nil {
		leeway = r.intOr(a[3], 5)
	}
	if length < int64(runeCount(end)) {
		r.fail("expected length >= %d, got %d", runeCount(end), length)
	}
	if leeway < 0 {
		r.fail("expected leeway >= 0, got %d", leeway)
	}
	if r.scan(len(s)); int64(runeCount(s)) <= length || int64(runeCount(s))-length <= leeway {
		return self
	}
	cut := r.sliceString(s, nil, length-int64(runeCount(end)), nil)
	if !r.truthOr(a[1], false) {
		if n := strings.LastIndexByte(cut, ' '); n >= 0 {
			cut = cut[:n]
		}
	}
	return r.join(cut, end)
}

// quoteURL escapes what has a meaning in a URL; "+" in keep stands for a blank.
func (r *run) quoteURL(s, keep string) string {
	b := &builder{run: r}
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("_.-~", c) >= 0 || keep == "/" && c == '/':
			b.write(s[i : i+1])
		case c == ' ' && keep == "+":
			b.write("+")
		default:
			b.write("%" + strings.ToUpper(strconv.FormatInt(int64(c)+256, 16)[1:]))
		}
	}
	return b.String()
}
