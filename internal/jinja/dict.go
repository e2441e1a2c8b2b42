package jinja

import (
	"strconv"
	"strings"
)

// Dict is a Python dict: keys in the order they came.
type Dict struct {
	keys, values []Value
	index        map[any]int // once there are many
}

// NewDict makes an empty dict.
func NewDict() *Dict { return &Dict{} }

// Len is the number of keys.
func (d *Dict) Len() int { return len(d.keys) }

// Set stores a value under a string; where there is one it is replaced.
func (d *Dict) Set(key string, v Value) { d.set(key, key, v) }

// Get is the value under a string.
func (d *Dict) Get(key string) (Value, bool) {
	if i := d.find(key, key); i >= 0 {
		return d.values[i], true
	}
	return nil, false
}

// All calls yield with each key that is a string, and its value.
func (d *Dict) All(yield func(string, Value) bool) {
	for i, k := range d.keys {
		if s, ok := k.(string); ok && !yield(s, d.values[i]) {
			return
		}
	}
}

// Copy is a dict that can be set without changing this one.
func (d *Dict) Copy() *Dict {
	c := &Dict{}
	for i, k := range d.keys {
		h, _ := hash(k)
		c.set(h, k, d.values[i])
	}
	return c
}

func (d *Dict) get(key Value) (Value, bool) {
	h, ok := hash(key)
	if !ok {
		return nil, false
	}
	if i := d.find(h, key); i >= 0 {
		return d.values[i], true
	}
	return nil, false
}

// fewKeys is up to how many keys are looked through one by one.
const fewKeys = 8

func (d *Dict) find(h any, key Value) int {
	if d.index != nil {
		if i, ok := d.index[h]; ok {
			return i
		}
		return -1
	}
	for i, k := range d.keys {
		if s, ok := k.(string); ok {
			if s == h {
				return i
			}
		} else if other, _ := hash(k); other == h {
			return i
		}
	}
	return -1
}

func (d *Dict) set(h any, key, v Value) {
	if i := d.find(h, key); i >= 0 {
		d.values[i] = v
		return
	}
	d.keys, d.values = append(d.keys, key), append(d.values, v)
	if d.index != nil {
		d.index[h] = len(d.keys) - 1
	} else if len(d.keys) > fewKeys {
		d.index = make(map[any]int, 2*len(d.keys))
		for i, k := range d.keys {
			h, _ := hash(k)
			d.index[h] = i
		}
	}
}

type (
	noneKey      struct{}
	undefinedKey struct{}
	tupleKey     string
)

// hash is what equal keys have in common, and false for what cannot be a key.
func hash(v Value) (any, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case markup:
		return string(v), true
	case nil:
		return noneKey{}, true
	case float64:
		if i := int64(v); float64(i) == v {
			return i, true
		}
		return v, true
	case *undefined:
		return undefinedKey{}, true
	case *Tuple:
		return hashTuple(v, 0)
	case *List, *Dict, *view, function:
		return nil, false
	}
	if i, ok := integer(v); ok {
		return i, true
	}
	return v, true
}

func hashTuple(t *Tuple, depth int) (any, bool) {
	if depth > 16 || len(t.Items) > 1000 {
		return nil, false
	}
	var b strings.Builder
	for _, x := range t.Items {
		var h any
		ok := false
		if t, isTuple := x.(*Tuple); isTuple {
			h, ok = hashTuple(t, depth+1)
		} else {
			h, ok = hash(x)
		}
		if !ok {
			return nil, false
		}
		part := ""
		switch h := h.(type) {
		case string:
			part = "s" + h
		case tupleKey:
			part = "t" + string(h)
		case int64:
			part = "i" + strconv.FormatInt(h, 10)
		case float64:
			part = "f" + formatFloat(h)
		case noneKey:
			part = "n"
		case undefinedKey:
			part = "u"
		default:
			return nil, false
		}
		if b.Len() > 1<<16 {
			return nil, false
		}
		b.WriteString(strconv.Itoa(len(part)) + ":" + part)
	}
	return tupleKey(b.String()), true
}
