package jinja

import (
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/seed18967229/nibble/internal/python"
)

// dump is how json.dumps writes.
type dump struct {
	b             *builder
	ascii, sorted bool
	indent        string
	indented      bool
	item, key     string // separators
}

func toJSON(r *run, v Value, a []Value) Value {
	d := &dump{b: &builder{run: r}, ascii: r.truthOr(a[0], false), sorted: r.truthOr(a[3], false), item: ", ", key: ": "}
	if indent := a[1]; given(indent) && indent != nil {
		d.indented, d.item = true, ","
		if s, ok := stringOf(indent); ok {
			d.indent = s
		} else {
			d.indent = r.repeatString(" ", r.intOr(indent, 0))
		}
	}
	if s := a[2]; given(s) && s != nil {
		two := r.collect(s)
		if len(two) != 2 {
			r.fail("separators must be two strings")
		}
		d.item, d.key = r.text(two[0]), r.text(two[1])
	}
	d.value(r, v, "\n")
	return d.b.String()
}

func (d *dump) value(r *run, v Value, line string) {
	r.step(1)
	r.enter()
	defer r.leave()
	if d.indented {
		r.make(int64(len(line) + len(d.indent)))
	}
	inner := line + d.indent
	newline := func(s string) {
		if d.indented {
			d.b.write(s)
		}
	}
	list := func(items []Value) {
		if len(items) == 0 {
			d.b.write("[]")
			return
		}
		d.b.write("[")
		for i, x := range items {
			if i > 0 {
				d.b.write(d.item)
			}
			newline(inner)
			d.value(r, x, inner)
		}
		newline(line)
		d.b.write("]")
	}
	switch v := v.(type) {
	case *List:
		list(v.Items)
	case *Tuple:
		list(v.Items)
	case *Dict:
		if v.Len() == 0 {
			d.b.write("{}")
			return
		}
		d.b.write("{")
		pairs := v.pairs(r)
		if d.sorted {
			r.sort(pairs, func(p Value) Value { return p.(*Tuple).Items[0] }, false)
		}
		for i, p := range pairs {
			if i > 0 {
				d.b.write(d.item)
			}
			newline(inner)
			p := p.(*Tuple)
			switch k := p.Items[0].(type) {
			case string:
				d.quote(r, k)
			case markup:
				d.quote(r, string(k))
			case nil, bool, int64, float64:
				d.b.write(`"`)
				d.value(r, k, line)
				d.b.write(`"`)
			default:
				r.fail("keys must be str, int, float, bool or None, not %s", typeName(k))
			}
			d.b.write(d.key)
			d.value(r, p.Items[1], inner)
		}
		newline(line)
		d.b.write("}")
	case nil:
		d.b.write("null")
	case bool:
		d.b.write(strconv.FormatBool(v))
	case int64:
		d.b.write(strconv.FormatInt(v, 10))
	case float64:
		switch {
		case math.IsNaN(v):
			d.b.write("NaN")
		case math.IsInf(v, 1):
			d.b.write("Infinity")
		case math.IsInf(v, -1):
			d.b.write("-Infinity")
		default:
			d.b.write(string(python.AppendFloat(nil, v)))
		}
	case string:
		d.quote(r, v)
	case markup:
		d.quote(r, string(v))
	default:
		r.fail("Object of type %s is not JSON serializable", typeName(v))
	}
}

func (d *dump) quote(r *run, s string) {
	r.scan(len(s))
	d.b.write(`"`)
	from := 0
	for i, c := range s {
		var e string
		switch {
		case c == '"':
			e = `\"`
		case c == '\\':
			e = `\\`
		case c == '\n':
			e = `\n`
		case c == '\r':
			e = `\r`
		case c == '\t':
			e = `\t`
		case c == '\b':
			e = `\b`
		case c == '\f':
			e = `\f`
		case c < ' ' || d.ascii && c > '~' && c < 0x10000:
			h := strconv.FormatInt(int64(c), 16)
			e = `\u` + "0000"[len(h):] + h
		case d.ascii && c > '~':
			c -= 0x10000
			e = `\u` + strconv.FormatInt(int64(0xd800+c>>10), 16) + `\u` + strconv.FormatInt(int64(0xdc00+c&0x3ff), 16)
		default:
			continue
		}
		d.b.write(s[from:i])
		d.b.write(e)
		_, n := utf8.DecodeRuneInString(s[i:])
		from = i + n
	}
	d.b.write(s[from:])
	d.b.write(`"`)
}

// pairs are the keys and values of a dict.
func (d *Dict) pairs(r *run) []Value {
	r.make(int64(d.Len()) * 5 * valueSize)
	all := make([]Value, len(d.keys))
	for i, k := range d.keys {
		all[i] = &Tuple{Items: []Value{k, d.values[i]}}
	}
	return all
}

// lines are those of str.splitlines.
func lines(s string, keep bool) []string {
	var all []string
	for s != "" {
		i := strings.IndexFunc(s, func(c rune) bool {
			return c >= '\n' && c <= '\r' || c >= 0x1c && c <= 0x1e || c == 0x85 || c == 0x2028 || c == 0x2029
		})
		if i < 0 {
			return append(all, s)
		}
		end := i + len(firstRune(s[i:]))
		if s[i] == '\r' && strings.HasPrefix(s[i+1:], "\n") {
			end++
		}
		if keep {
			i = end
		}
		all = append(all, s[:i])
		s = s[end:]
	}
	return all
}
