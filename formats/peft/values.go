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
func (p Pattern) MarshalJSON() ([]byte, error) {
	b := []byte{'{'}
	for i, e := range p {
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

// A Replication is a run of layers of the base, from the first number to before
// the second.
type Replication [2]int64

// Tokens says of which tokens an adapter holds the rows, for each embedding by
// the end of its name. In the file a list without a name, here an empty one,
// means the input's embedding.
type Tokens []TokenRows

// TokenRows are the tokens of one embedding.
type TokenRows struct {
	Module string
	Rows   []int64
}

// UnmarshalJSON implements json.Unmarshaler: an object of lists, a list or null.
// The order is kept.
func (t *Tokens) UnmarshalJSON(text []byte) error {
	*t = nil
	switch jsontext.Value(text).Kind() {
	case 'n':
		return nil
	case '[':
		one := TokenRows{}
		if err := json.Unmarshal(text, &one.Rows); err != nil {
			return err
		}
		*t = Tokens{one}
		return nil
	}
	dec := jsontext.NewDecoder(bytes.NewReader(text))
	if tok, err := dec.ReadToken(); err != nil || tok.Kind() != '{' {
		return errors.Join(err, errors.New("not an object of lists of tokens"))
	}
	for dec.PeekKind() == '"' {
		tok, err := dec.ReadToken()
		if err != nil {
			return err
		}
		one := TokenRows{Module: tok.String()}
		if err := json.UnmarshalDecode(dec, &one.Rows); err != nil {
			return err
		}
		*t = append(*t, one)
	}
	_, err := dec.ReadToken()
	return err
}

// MarshalJSON implements json.Marshaler.
func (t *Tokens) MarshalJSON() ([]byte, error) {
	switch {
	case len(*t) == 0:
		return []byte("null"), nil
	case len(*t) == 1 && (*t)[0].Module == "":
		return json.Marshal((*t)[0].Rows)
	}
	b := []byte{'{'}
	for i, one := range *t {
		if i > 0 {
			b = append(b, ',')
		}
		var err error
		if b, err = jsontext.AppendQuote(b, one.Module); err != nil {
			return nil, err
		}
		rows, err := json.Marshal(one.Rows)
		if err != nil {
			return nil, err
		}
		b = append(append(b, ':'), rows...)
	}
	return append(b, '}'), nil
}
