package peft

import (
	"bytes"
	"errors"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Modules says which modules are meant: those whose name is one of Names or ends
// in a dot and one of them, or those whose whole name the regular expression
// Regex matches, where "all-linear" stands for every linear layer but the
// output. Both nil and empty is PEFT's null.
type Modules struct {
	Names []string
	Regex string
}

// UnmarshalJSON implements json.Unmarshaler: a list, a string or null.
func (m *Modules) UnmarshalJSON(text []byte) error {
	*m = Modules{}
	if jsontext.Value(text).Kind() == '"' {
		return json.Unmarshal(text, &m.Regex)
	}
	return unmarshalList(text, &m.Names)
}

// MarshalJSON implements json.Marshaler.
func (m *Modules) MarshalJSON() ([]byte, error) {
	if m.Regex != "" {
		return json.Marshal(m.Regex)
	}
	return json.Marshal(m.Names, json.FormatNilSliceAsNull(true))
}

// Layers is a list of layer numbers; nil means all.
type Layers []int64

// UnmarshalJSON implements json.Unmarshaler: a list, one number or null.
func (l *Layers) UnmarshalJSON(text []byte) error {
	if jsontext.Value(text).Kind() == '0' {
		*l = make(Layers, 1)
		return json.Unmarshal(text, &(*l)[0])
	}
	return unmarshalList(text, (*[]int64)(l))
}

// unmarshalList reads a list, or null as nil.
func unmarshalList[T any](text []byte, list *[]T) error {
	*list = nil
	if jsontext.Value(text).Kind() == 'n' {
		return nil
	}
	return json.Unmarshal(text, list)
}

// Init is how the tensors began: the name of a method, or "true" for PEFT's own
// and "false" for random numbers, which are booleans in the file.
type Init string

// UnmarshalJSON implements json.Unmarshaler: a boolean or a string. Null is
// false, as in Python.
func (i *Init) UnmarshalJSON(text []byte) error {
	switch jsontext.Value(text).Kind() {
	case 't', 'f':
		*i = Init(text)
		return nil
	case 'n':
		*i = "false"
		return nil
	}
	return json.Unmarshal(text, (*string)(i))
}

// MarshalJSON implements json.Marshaler.
func (i *Init) MarshalJSON() ([]byte, error) {
	if *i == "true" || *i == "false" {
		return []byte(*i), nil
	}
	return json.Marshal(string(*i))
}

// A Pattern gives modules a rank or an alpha of their own. The first key that
// matches a module counts: at the end of its name, after a dot, or with a
// leading ^ at the start (get_pattern_key in PEFT's utils/other.py).
type Pattern []PatternEntry

// A PatternEntry is one key of a Pattern and its value.
type PatternEntry struct {
	Key   string
	Value float64
}

var errNotNumbers = errors.New("not an object of numbers")

// UnmarshalJSON implements json.Unmarshaler: an object of numbers, or null. The
// order is kept.
func (p *Pattern) UnmarshalJSON(text []byte) error {
	*p = nil
	dec := jsontext.NewDecoder(bytes.NewReader(text))
	tok, err := dec.ReadToken()
	switch {
	case err != nil || tok.Kind() == 'n':
		return err
	case tok.Kind() != '{':
		return errNotNumbers
	}
	for dec.PeekKind() == '"' {
		if tok, err = dec.ReadToken(); err != nil {
			return err
		}
		e := PatternEntry{Key: tok.String()}
		if tok, err = dec.ReadToken(); err != nil {
			return err
		}
		if tok.Kind() != '0' {
			return errNotNumbers
		}
		if e.Value, err = tok.Float(); err != nil {
			return err
		}
		*p = append(*p, e)
	}
	return nil
}

// MarshalJSON implements json.Marshaler.
func (p *Pattern) MarshalJSON() ([]byte, error) {
	b := []byte{'{'}
	for i, e := range *p {
		if i > 0 {
			b = append(b, ',')
		}
		var err error
		if b, err = jsontext.AppendQuote(b, e.Key); err != nil {
			return nil, err
		}
		b = appendNumber(append(b, ':'), e.Value, true)
	}
	return append(b, '}'), nil
}
