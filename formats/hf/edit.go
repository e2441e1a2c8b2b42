package hf

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/seed18967229/nibble/tensor"
)

// A Field is a member of a JSON object: its name, and its value as JSON text.
type Field struct {
	Name  string
	Value []byte
}

// Edit returns the text of a JSON object with some members dropped and others
// set. A member that is there keeps its place, one that is not comes last, in
// the order of set. All else keeps its order, and numbers and strings their
// spelling (1e-05 stays 1e-05); white space becomes that of transformers'
// files: two spaces of indentation and a final newline. A name in both lists is
// set, and comes last. A name to drop may lead into an object, with a dot:
// "text_config.quantization_config".
//
// The error wraps tensor.ErrMalformed if the text is not one JSON object.
func Edit(text []byte, set []Field, drop []string) ([]byte, error) {
	list, err := members(text)
	if err != nil {
		return nil, err
	}
	list = slices.DeleteFunc(list, func(m member) bool { return slices.Contains(drop, m.name) })
	for _, name := range drop {
		outer, inner, _ := strings.Cut(name, ".")
		i := slices.IndexFunc(list, func(m member) bool { return m.name == outer && m.value.Kind() == '{' })
		if i < 0 || inner == "" {
			continue
		}
		if list[i].value, err = Edit(list[i].value, nil, []string{inner}); err != nil {
			return nil, err
		}
	}
	for _, f := range set {
		if !jsontext.Value(f.Value).IsValid() {
			return nil, fmt.Errorf("the value for %q is not JSON", f.Name)
		}
		i := slices.IndexFunc(list, func(m member) bool { return m.name == f.Name })
		if i < 0 {
			quoted, err := jsontext.AppendQuote(nil, f.Name)
			if err != nil {
				return nil, fmt.Errorf("the name %q: %w", f.Name, err)
			}
			i = len(list)
			list = append(list, member{name: f.Name, quoted: quoted})
		}
		list[i].value = f.Value
	}
	b := []byte{'{'}
	for i, m := range list {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(append(append(b, m.quoted...), ':'), m.value...)
	}
	b = append(b, '}')
	b, err = jsontext.AppendFormat(nil, b, jsontext.WithIndent("  "), jsontext.PreserveRawStrings(true))
	return append(b, '\n'), err
}

// member is a member of a JSON object with its spelling.
type member struct {
	name          string
	quoted, value jsontext.Value
}

// members returns the members of the JSON object that the text must be, in
// order.
func members(text []byte) ([]member, error) {
	list, err := readMembers(jsontext.NewDecoder(bytes.NewReader(text)))
	if err != nil && !errors.Is(err, tensor.ErrMalformed) {
		err = fmt.Errorf("%w: not JSON: %w", tensor.ErrMalformed, err)
	}
	return list, err
}

func readMembers(dec *jsontext.Decoder) ([]member, error) {
	tok, err := dec.ReadToken()
	if err != nil {
		return nil, err
	}
	if tok.Kind() != '{' {
		return nil, fmt.Errorf("%w: %v where there must be a JSON object", tensor.ErrMalformed, tok.Kind())
	}
	var list []member
	for dec.PeekKind() != '}' {
		quoted, err := dec.ReadValue()
		if err != nil {
			return nil, err
		}
		quoted = quoted.Clone()
		name, err := jsontext.AppendUnquote(nil, quoted)
		if err != nil {
			return nil, err
		}
		value, err := dec.ReadValue()
		if err != nil {
			return nil, err
		}
		list = append(list, member{name: string(name), quoted: quoted, value: value.Clone()})
	}
	if _, err := dec.ReadToken(); err != nil {
		return nil, err
	}
	if _, err := dec.ReadToken(); err != io.EOF {
		if err == nil {
			err = fmt.Errorf("%w: there is more after the JSON object", tensor.ErrMalformed)
		}
		return nil, err
	}
	return list, nil
}
