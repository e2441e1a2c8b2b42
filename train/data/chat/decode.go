package chat

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/seed18967229/nibble/internal/jinja"
	"github.com/seed18967229/nibble/tensor"
)

// maxNesting bounds how deep the values of a message nest.
const maxNesting = 100

// DecodeMessages reads a JSON list of objects, each a message, a tool or a document, and keeps the order of their keys.
func DecodeMessages(raw jsontext.Value) ([]any, error) {
	v, err := Decode(raw)
	if err != nil {
		return nil, err
	}
	l, ok := v.(*jinja.List)
	if !ok {
		return nil, fmt.Errorf("%w: expected a JSON list of messages, found %s", tensor.ErrMalformed, kindName(raw))
	}
	out := make([]any, len(l.Items))
	for i, m := range l.Items {
		if _, ok := m.(*jinja.Dict); !ok {
			return nil, fmt.Errorf("%w: message %d of the list is no object with role and content", tensor.ErrMalformed, i+1)
		}
		out[i] = m
	}
	return out, nil
}

func kindName(raw jsontext.Value) string {
	switch raw.Kind() {
	case '{':
		return "an object"
	case '"':
		return "a string"
	case '0':
		return "a number"
	case 'n':
		return "null"
	}
	return "something else"
}

// Decode reads any JSON value for Input.Vars, keeping the order of keys.
func Decode(raw jsontext.Value) (any, error) {
	d := jsontext.NewDecoder(bytes.NewReader(raw), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	v, err := decode(d, 0)
	if err != nil {
		return nil, err
	}
	if _, err := d.ReadToken(); err != io.EOF {
		return nil, fmt.Errorf("%w: more than one JSON value", tensor.ErrMalformed)
	}
	return v, nil
}

func tooDeep() error {
	return fmt.Errorf("%w: a message nested more than %d deep", tensor.ErrUnsupported, maxNesting)
}

func decode(d *jsontext.Decoder, depth int) (jinja.Value, error) {
	if depth > maxNesting {
		return nil, tooDeep()
	}
	t, err := d.ReadToken()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", tensor.ErrMalformed, err)
	}
	switch t.Kind() {
	case 'n':
		return nil, nil
	case 't', 'f':
		return t.Bool(), nil
	case '"':
		return t.String(), nil
	case '0':
		return decodeNumber(t.String())
	case '[':
		l := &jinja.List{}
		for d.PeekKind() != ']' {
			v, err := decode(d, depth+1)
			if err != nil {
				return nil, err
			}
			l.Items = append(l.Items, v)
		}
		_, err := d.ReadToken()
		return l, err
	}
	o := jinja.NewDict()
	for d.PeekKind() != '}' {
		k, err := d.ReadToken()
		if err != nil {
			return nil, fmt.Errorf("%w: %w", tensor.ErrMalformed, err)
		}
		key := k.String()
		v, err := decode(d, depth+1)
		if err != nil {
			return nil, err
		}
		o.Set(key, v)
	}
	_, err = d.ReadToken()
	return o, err
}

func decodeNumber(s string) (jinja.Value, error) {
	if strings.ContainsAny(s, ".eE") {
		f, err := strconv.ParseFloat(s, 64)
		if err != nil && !math.IsInf(f, 0) {
			return nil, fmt.Errorf("%w: %s is no number", tensor.ErrMalformed, s)
		}
		return f, nil
	}
	i, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return nil, fmt.Errorf("%w: %s is no integer of 64 bits", tensor.ErrUnsupported, s)
	}
	return i, nil
}

// value is what templates see of a value that Go made, and counts its size.
func (c *conversation) value(v any, depth int) (jinja.Value, error) {
	if depth > maxNesting {
		return nil, tooDeep()
	}
	c.size += 16
	switch v := v.(type) {
	case nil, bool, int64, float64:
		return v, nil
	case int:
		return int64(v), nil
	case string:
		c.size += int64(len(v))
		return v, nil
	case jsontext.Value:
		x, err := Decode(v)
		if err != nil {
			return nil, err
		}
		return c.value(x, depth)
	case *jinja.List:
		for _, x := range v.Items {
			if _, err := c.value(x, depth+1); err != nil {
				return nil, err
			}
		}
		return v, nil
	case *jinja.Dict:
		for k, x := range v.All {
			c.size += int64(len(k))
			if _, err := c.value(x, depth+1); err != nil {
				return nil, err
			}
		}
		return v, nil
	case []any:
		l := &jinja.List{Items: make([]jinja.Value, len(v))}
		for i, x := range v {
			y, err := c.value(x, depth+1)
			if err != nil {
				return nil, err
			}
			l.Items[i] = y
		}
		return l, nil
	case map[string]any:
		d := jinja.NewDict()
		first := []string{"role", "content"}
		keys := slices.DeleteFunc(slices.Sorted(maps.Keys(v)), func(k string) bool { return slices.Contains(first, k) })
		for _, k := range append(first, keys...) {
			x, ok := v[k]
			if !ok {
				continue
			}
			y, err := c.value(x, depth+1)
			if err != nil {
				return nil, err
			}
			c.size += int64(len(k))
			d.Set(k, y)
		}
		return d, nil
	}
	return nil, fmt.Errorf("%w: a template cannot be given a %T", tensor.ErrUnsupported, v)
}
