package jinja

import (
	"math"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/seed18967229/nibble/internal/python"
)

// Value is what templates compute with: nil, bool, int64, float64, string, *List, *Dict and the types of this package. Nothing changes a value
// once it is made, a namespace excepted.
type Value any

// List is a Python list.
type List struct{ Items []Value }

// Tuple is a Python tuple. Those of groupby have names for their items.
type Tuple struct {
	Items []Value
	names []string
}

type (
	// markup is text that the filter safe went over; what is joined to it with + is escaped.
	markup string

	undefined struct {
		hint     string
		obj      Value
		name     Value
		attached bool // of an object; else a variable
	}

	// rangeOf is range(...).
	rangeOf struct{ start, stop, step, n int64 }

	// iterator is a generator: its values can be had once.
	iterator struct {
		name string
		next func() (Value, bool)
	}

	// view is what keys(), values() and items() of a dict give.
	view struct {
		name  string
		items []Value
	}

	namespace struct{ attrs *Dict }

	// joiner is empty the first time it is called.
	joiner struct {
		sep  Value
		used bool
	}

	cycler struct {
		items []Value
		at    int
	}

	// function is something callable: a builtin, with what it belongs to, or a macro.
	function struct {
		*builtin
		self Value
	}

	macro struct {
		name string
		signature
		body  []stmt
		scope *scope
	}

	// absent stands for an argument that was not given.
	absent struct{}
)

func typeName(v Value) string {
	switch v := v.(type) {
	case nil:
		return "NoneType"
	case bool:
		return "bool"
	case int64:
		return "int"
	case float64:
		return "float"
	case string:
		return "str"
	case markup:
		return "Markup"
	case *List:
		return "list"
	case *Tuple:
		return "tuple"
	case *Dict:
		return "dict"
	case *undefined:
		return "Undefined"
	case rangeOf:
		return "range"
	case *iterator:
		return v.name
	case *view:
		return v.name
	case *namespace:
		return "TemplateNamespace"
	case *macro:
		return "Macro"
	case *loop:
		return "LoopContext"
	case *joiner:
		return "Joiner"
	case *cycler:
		return "Cycler"
	case function:
		if v.self != nil {
			return "builtin_function_or_method"
		}
	}
	return "function"
}

// typeRepr is how Jinja names what an attribute was looked for on.
func typeRepr(v Value) string {
	switch v.(type) {
	case nil:
		return "None"
	case *namespace:
		return "transformers.utils.chat_template_utils.TemplateNamespace object"
	case *macro, *loop:
		return "jinja2.runtime." + typeName(v) + " object"
	case *joiner, *cycler:
		return "jinja2.utils." + typeName(v) + " object"
	case markup:
		return "markupsafe.Markup object"
	}
	return typeName(v) + " object"
}

func (u *undefined) message() string {
	switch {
	case u.hint != "":
		return u.hint
	case !u.attached:
		return repr(u.name.(string)) + " is undefined"
	}
	if name, ok := u.name.(string); ok {
		return repr(typeRepr(u.obj)) + " has no attribute " + repr(name)
	}
	key := typeName(u.name)
	switch n := u.name.(type) {
	case int64:
		key = strconv.FormatInt(n, 10)
	case float64:
		key = formatFloat(n)
	case nil:
		key = "None"
	}
	return typeRepr(u.obj) + " has no element " + key
}

func (r *run) truth(v Value) bool {
	switch v := v.(type) {
	case nil:
		return false
	case bool:
		return v
	case int64:
		return v != 0
	case float64:
		return v != 0
	case string:
		return v != ""
	case markup:
		return v != ""
	case *List:
		return len(v.Items) > 0
	case *Tuple:
		return len(v.Items) > 0
	case *Dict:
		return v.Len() > 0
	case *undefined:
		return false
	case rangeOf:
		return v.n > 0
	case *view:
		return len(v.items) > 0
	case *loop:
		return v.length(r) > 0
	}
	return true
}

// stringOf is v as a string if it is one.
func stringOf(v Value) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case markup:
		return string(v), true
	}
	return "", false
}

// integer is v as an int if it is one; a bool is, in Python.
func integer(v Value) (int64, bool) {
	switch v := v.(type) {
	case int64:
		return v, true
	case bool:
		if v {
			return 1, true
		}
		return 0, true
	}
	return 0, false
}

func number(v Value) (float64, bool) {
	if f, ok := v.(float64); ok {
		return f, true
	}
	i, ok := integer(v)
	return float64(i), ok
}

// items is what v holds if it is a list, a tuple or a view.
func items(v Value) ([]Value, bool) {
	switch v := v.(type) {
	case *List:
		return v.Items, true
	case *Tuple:
		return v.Items, true
	case *view:
		return v.items, true
	}
	return nil, false
}

func formatFloat(f float64) string {
	switch {
	case math.IsNaN(f):
		return "nan"
	case math.IsInf(f, 1):
		return "inf"
	case math.IsInf(f, -1):
		return "-inf"
	}
	return string(python.AppendFloat(nil, f))
}

// str is str(v).
func (r *run) str(v Value) string {
	switch v := v.(type) {
	case string:
		return v
	case markup:
		return string(v)
	case *undefined:
		return ""
	}
	return r.repr(v)
}

// repr is repr(v).
func (r *run) repr(v Value) string {
	var b builder
	b.run = r
	r.appendRepr(&b, v)
	return b.String()
}

func (r *run) appendRepr(b *builder, v Value) {
	r.step(1)
	r.enter()
	defer r.leave()
	list := func(open string, items []Value, end string) {
		b.write(open)
		for i, x := range items {
			if i > 0 {
				b.write(", ")
			}
			r.appendRepr(b, x)
		}
		b.write(end)
	}
	switch v := v.(type) {
	case nil:
		b.write("None")
	case bool:
		if v {
			b.write("True")
		} else {
			b.write("False")
		}
	case int64:
		b.write(strconv.FormatInt(v, 10))
	case float64:
		b.write(formatFloat(v))
	case string:
		b.write(repr(v))
	case markup:
		b.write("Markup(" + repr(string(v)) + ")")
	case *undefined:
		b.write("Undefined")
	case *List:
		list("[", v.Items, "]")
	case *Tuple:
		if len(v.Items) == 1 {
			list("(", v.Items, ",)")
		} else {
			list("(", v.Items, ")")
		}
	case *view:
		list(v.name+"([", v.items, "])")
	case *Dict:
		r.appendDict(b, v)
	case *namespace:
		b.write("<Namespace ")
		r.appendDict(b, v.attrs)
		b.write(">")
	case rangeOf:
		b.write("range(" + strconv.FormatInt(v.start, 10) + ", " + strconv.FormatInt(v.stop, 10))
		if v.step != 1 {
			b.write(", " + strconv.FormatInt(v.step, 10))
		}
		b.write(")")
	case *macro:
		if v.name == "" {
			b.write("<Macro anonymous>")
		} else {
			b.write("<Macro " + repr(v.name) + ">")
		}
	case *loop:
		b.write("<LoopContext " + strconv.Itoa(v.index+1) + "/" + strconv.Itoa(v.length(r)) + ">")
	default:
		b.write("<" + typeName(v) + " object>")
	}
}

func (r *run) appendDict(b *builder, d *Dict) {
	b.write("{")
	for i, k := range d.keys {
		if i > 0 {
			b.write(", ")
		}
		r.appendRepr(b, k)
		b.write(": ")
		r.appendRepr(b, d.values[i])
	}
	b.write("}")
}

// repr is a string as Python writes it.
func repr(s string) string {
	quote := byte('\'')
	if strings.Contains(s, "'") && !strings.Contains(s, "\"") {
		quote = '"'
	}
	b := make([]byte, 0, len(s)+2)
	b = append(b, quote)
	for _, c := range s {
		switch {
		case c == rune(quote) || c == '\\':
			b = append(b, '\\', byte(c))
		case c == '\n':
			b = append(b, `\n`...)
		case c == '\r':
			b = append(b, `\r`...)
		case c == '\t':
			b = append(b, `\t`...)
		case unicode.IsPrint(c):
			b = utf8.AppendRune(b, c)
		default:
			b = append(b, escaped(c)...)
		}
	}
	return string(append(b, quote))
}

// escaped is a character as \xhh, \uhhhh or \Uhhhhhhhh.
func escaped(c rune) string {
	h := strconv.FormatInt(int64(c), 16)
	switch {
	case c < 0x100:
		return `\x` + "00"[:2-len(h)] + h
	case c < 0x10000:
		return `\u` + "0000"[:4-len(h)] + h
	}
	return `\U` + "00000000"[:8-len(h)] + h
}

// equal is x == y.
func (r *run) equal(x, y Value) bool {
	r.step(1)
	if a, ok := number(x); ok {
		b, ok := number(y)
		if i, exact := integer(x); exact {
			if j, exact := integer(y); exact {
				return i == j
			}
		}
		return ok && a == b
	}
	if a, ok := stringOf(x); ok {
		b, ok := stringOf(y)
		r.scan(min(len(a), len(b)))
		return ok && a == b
	}
	r.enter()
	defer r.leave()
	all := func(x, y []Value) bool {
		if len(x) != len(y) {
			return false
		}
		for i := range x {
			if !r.equal(x[i], y[i]) {
				return false
			}
		}
		return true
	}
	switch x := x.(type) {
	case nil:
		return y == nil
	case *undefined:
		_, ok := y.(*undefined)
		return ok
	case *List:
		y, ok := y.(*List)
		return ok && all(x.Items, y.Items)
	case *Tuple:
		y, ok := y.(*Tuple)
		return ok && all(x.Items, y.Items)
	case *view:
		y, ok := y.(*view)
		return ok && all(x.items, y.items)
	case *Dict:
		y, ok := y.(*Dict)
		if !ok || x.Len() != y.Len() {
			return false
		}
		for i, k := range x.keys {
			v, ok := y.get(k)
			if !ok || !r.equal(x.values[i], v) {
				return false
			}
		}
		return true
	case rangeOf:
		y, ok := y.(rangeOf)
		return ok && x.n == y.n && (x.n == 0 || x.start == y.start && (x.n == 1 || x.step == y.step))
	}
	return same(x, y)
}

// same is x is y, for what has an identity; numbers and strings are the same where they are equal.
func same(x, y Value) bool {
	switch x := x.(type) {
	case function:
		y, ok := y.(function)
		return ok && x.builtin == y.builtin && x.self == nil && y.self == nil
	case *undefined:
		return x == y
	}
	return x == y
}

// less is x < y, for what has an order. An error names op, and the two in the order of the source.
func (r *run) less(x, y Value, op string, swapped bool) bool {
	r.step(1)
	for _, v := range []Value{x, y} {
		if u, ok := v.(*undefined); ok {
			r.fail("%s", u.message())
		}
	}
	if i, ok := integer(x); ok {
		if j, ok := integer(y); ok {
			return i < j
		}
	}
	if a, ok := number(x); ok {
		if b, ok := number(y); ok {
			return a < b
		}
	}
	if a, ok := stringOf(x); ok {
		if b, ok := stringOf(y); ok {
			r.scan(min(len(a), len(b)))
			return a < b // UTF-8 sorts as code points do
		}
	}
	_, isList := x.(*List)
	_, isList2 := y.(*List)
	_, isTuple := x.(*Tuple)
	_, isTuple2 := y.(*Tuple)
	if isList && isList2 || isTuple && isTuple2 {
		r.enter()
		defer r.leave()
		a, _ := items(x)
		b, _ := items(y)
		for i := range min(len(a), len(b)) {
			if !r.equal(a[i], b[i]) {
				return r.less(a[i], b[i], op, swapped)
			}
		}
		return len(a) < len(b)
	}
	if swapped {
		x, y = y, x
	}
	r.fail("'%s' not supported between instances of '%s' and '%s'", op, typeName(x), typeName(y))
	return false
}
