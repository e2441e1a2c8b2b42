package jinja

import (
	"math"
	"strings"
)

func (r *run) unary(op string, v Value) Value {
	if op == "not" {
		return !r.truth(v)
	}
	if u, ok := v.(*undefined); ok {
		r.fail("%s", u.message())
	}
	if f, ok := v.(float64); ok {
		if op == "-" {
			return -f
		}
		return f
	}
	i, ok := integer(v)
	if !ok {
		r.fail("bad operand type for unary %s: '%s'", op, typeName(v))
	}
	if op == "-" {
		return r.subtract(0, i)
	}
	return i
}

func (r *run) overflow() { r.fail("the result is no integer of 64 bits") }

func (r *run) add(a, b int64) int64 {
	if c := a + b; (c > a) == (b > 0) {
		return c
	}
	r.overflow()
	return 0
}

func (r *run) subtract(a, b int64) int64 {
	if c := a - b; (c < a) == (b > 0) {
		return c
	}
	r.overflow()
	return 0
}

func (r *run) multiply(a, b int64) int64 {
	if a == 0 || b == 0 {
		return 0
	}
	c := a * b
	if c/b != a || a == -1 && b == math.MinInt64 || b == -1 && a == math.MinInt64 {
		r.overflow()
	}
	return c
}

func (r *run) binary(op string, a, b Value) Value {
	if s, ok := stringOf(a); ok && op == "%" {
		return r.likeMarkup(a, r.percent(s, b, safeText(a)))
	}
	for _, v := range []Value{a, b} {
		if u, ok := v.(*undefined); ok {
			r.fail("%s", u.message())
		}
	}
	i, isInt := integer(a)
	j, isInt2 := integer(b)
	if isInt && isInt2 {
		return r.integers(op, i, j)
	}
	x, isNumber := number(a)
	y, isNumber2 := number(b)
	if isNumber && isNumber2 {
		return r.floats(op, x, y)
	}
	switch op {
	case "+":
		return r.join(a, b)
	case "*":
		if isInt2 {
			return r.repeat(a, j, b)
		}
		if isInt {
			return r.repeat(b, i, a)
		}
		for _, v := range []Value{a, b} {
			switch v.(type) {
			case string, markup, *List, *Tuple:
				other := b
				if v == b {
					other = a
				}
				r.fail("can't multiply sequence by non-int of type '%s'", typeName(other))
			}
		}
	}
	r.unsupported(op, a, b)
	return nil
}

func (r *run) unsupported(op string, a, b Value) {
	if op == "**" {
		op = "** or pow()"
	}
	r.fail("unsupported operand type(s) for %s: '%s' and '%s'", op, typeName(a), typeName(b))
}

func (r *run) integers(op string, a, b int64) Value {
	switch op {
	case "+":
		return r.add(a, b)
	case "-":
		return r.subtract(a, b)
	case "*":
		return r.multiply(a, b)
	case "/":
		if b == 0 {
			r.fail("division by zero")
		}
		return float64(a) / float64(b)
	case "//", "%":
		if b == 0 {
			if op == "%" {
				r.fail("integer modulo by zero")
			}
			r.fail("integer division or modulo by zero")
		}
		if b == -1 {
			if op == "%" {
				return int64(0)
			}
			return r.subtract(0, a)
		}
		q, m := a/b, a%b
		if m != 0 && (m < 0) != (b < 0) {
			q, m = q-1, m+b
		}
		if op == "%" {
			return m
		}
		return q
	}
	if b < 0 {
		return r.floats("**", float64(a), float64(b))
	}
	power := int64(1)
	for ; b > 0; b >>= 1 {
		if b&1 == 1 {
			power = r.multiply(power, a)
		}
		if b > 1 {
			if a == 0 || a == 1 {
				break
			}
			a = r.multiply(a, a)
		}
	}
	return power
}

func (r *run) floats(op string, a, b float64) Value {
	switch op {
	case "+":
		return a + b
	case "-":
		return a - b
	case "*":
		return a * b
	case "**":
		if a == 0 && b < 0 {
			r.fail("0.0 cannot be raised to a negative power")
		}
		c := math.Pow(a, b)
		if math.IsInf(c, 0) && !math.IsInf(a, 0) && !math.IsInf(b, 0) {
			r.fail("(34, 'Numerical result out of range')")
		}
		return c
	}
	if b == 0 {
		switch op {
		case "/":
			r.fail("float division by zero")
		case "//":
			r.fail("float floor division by zero")
		}
		r.fail("float modulo")
	}
	if op == "/" {
		return a / b
	}
	m := math.Mod(a, b)
	if m != 0 && (m < 0) != (b < 0) {
		m += b
	}
	if op == "%" {
		return m
	}
	return math.Floor((a-m)/b + 0.5)
}

// join is a + b of strings, lists and tuples.
func (r *run) join(a, b Value) Value {
	if x, ok := stringOf(a); ok {
		y, ok := stringOf(b)
		if !ok {
			r.fail("can only concatenate str (not \"%s\") to str", typeName(b))
		}
		_, safe := a.(markup)
		_, safe2 := b.(markup)
		if safe && !safe2 {
			y = r.escape(y)
		} else if safe2 && !safe {
			x = r.escape(x)
		}
		r.make(int64(len(x) + len(y)))
		if safe || safe2 {
			return markup(x + y)
		}
		return x + y
	}
	x, _ := items(a)
	y, _ := items(b)
	switch a.(type) {
	case *List:
		if _, ok := b.(*List); !ok {
			r.fail("can only concatenate list (not \"%s\") to list", typeName(b))
		}
		return &List{r.joinItems(x, y)}
	case *Tuple:
		if _, ok := b.(*Tuple); !ok {
			r.fail("can only concatenate tuple (not \"%s\") to tuple", typeName(b))
		}
		return &Tuple{Items: r.joinItems(x, y)}
	}
	r.unsupported("+", a, b)
	return nil
}

func (r *run) joinItems(x, y []Value) []Value {
	r.make(int64(len(x)+len(y)) * valueSize)
	return append(append(make([]Value, 0, len(x)+len(y)), x...), y...)
}

func (r *run) repeat(v Value, n int64, other Value) Value {
	n = max(n, 0)
	if s, ok := stringOf(v); ok {
		return r.likeMarkup(v, r.repeatString(s, n))
	}
	all, ok := items(v)
	if _, isView := v.(*view); !ok || isView {
		r.unsupported("*", v, other)
	}
	if len(all) > 0 {
		r.make(r.multiply(n, int64(len(all))*valueSize))
	} else {
		n = 0
	}
	out := make([]Value, 0, int(n)*len(all))
	for range n {
		out = append(out, all...)
	}
	if _, ok := v.(*Tuple); ok {
		return &Tuple{Items: out}
	}
	return &List{out}
}

func (r *run) repeatString(s string, n int64) string {
	if s == "" || n <= 0 {
		return ""
	}
	if n > r.memory {
		r.make(n)
	}
	r.make(n * int64(len(s)))
	return strings.Repeat(s, int(n))
}

// likeMarkup is a text that was made of v: safe if v was.
func (r *run) likeMarkup(v Value, s string) Value {
	if _, ok := v.(markup); ok {
		return markup(s)
	}
	return s
}

func safeText(v Value) bool {
	_, ok := v.(markup)
	return ok
}

var escaper = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", "'", "&#39;", `"`, "&#34;")

func (r *run) escape(s string) string {
	r.make(int64(len(s)) * 5)
	return escaper.Replace(s)
}

func (r *run) compare(op string, a, b Value) bool {
	switch op {
	case "==":
		return r.equal(a, b)
	case "!=":
		return !r.equal(a, b)
	case "in":
		return r.contains(b, a)
	case "not in":
		return !r.contains(b, a)
	case "<":
		return r.less(a, b, op, false)
	case ">":
		return r.less(b, a, op, true)
	}
	x, isNumber := number(a)
	y, isNumber2 := number(b)
	if isNumber && isNumber2 && (math.IsNaN(x) || math.IsNaN(y)) {
		return false
	}
	if op == "<=" {
		return !r.less(b, a, op, true)
	}
	return !r.less(a, b, op, false)
}

// contains is v in all.
func (r *run) contains(all, v Value) bool {
	if s, ok := stringOf(all); ok {
		part, ok := stringOf(v)
		if !ok {
			r.fail("'in <string>' requires string as left operand, not %s", typeName(v))
		}
		r.scan(len(s))
		return strings.Contains(s, part)
	}
	switch all := all.(type) {
	case *Dict:
		r.hash(v)
		_, ok := all.get(v)
		return ok
	case *undefined:
		return false
	case *List, *Tuple, *view, rangeOf, *iterator:
		next, _ := r.iterate(all)
		for {
			x, ok := next()
			if !ok {
				return false
			}
			if r.equal(x, v) {
				return true
			}
		}
	}
	r.fail("argument of type '%s' is not iterable", typeName(all))
	return false
}
