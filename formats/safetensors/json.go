package safetensors

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/seed18967229/nibble/tensor"
)

// parseHeader reads the JSON of a header. Like the reference implementation it
// takes white space anywhere after the first byte and null for no metadata.
// Unlike it, but as the format's README demands, it takes no name twice; and
// it takes nothing in an entry but the three fields there are. As every value
// must be of one type, nesting has no depth to exhaust.
func parseHeader(r io.Reader) (tensor.Meta, []placed, error) {
	p := parser{jsontext.NewDecoder(r)}
	meta, list, err := p.header()
	var syntax *jsontext.SyntacticError
	if errors.As(err, &syntax) || errors.Is(err, io.EOF) {
		err = fmt.Errorf("%w: header: %w", tensor.ErrMalformed, err)
	}
	return meta, list, err
}

type parser struct{ *jsontext.Decoder }

func (p parser) header() (tensor.Meta, []placed, error) {
	var meta tensor.Meta
	var list []placed
	err := p.object("header", func(name string) (err error) {
		if name == metadataKey {
			meta, err = p.metadata()
			return err
		}
		t, err := p.entry(name)
		list = append(list, t)
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	if _, err := p.ReadToken(); err != io.EOF {
		if err == nil {
			err = fmt.Errorf("%w: header: there is more after its end", tensor.ErrMalformed)
		}
		return nil, nil, err
	}
	return meta, list, nil
}

// metadata reads the value of __metadata__: strings by name, or null.
func (p parser) metadata() (tensor.Meta, error) {
	if p.PeekKind() == 'n' {
		return nil, p.SkipValue()
	}
	var meta tensor.Meta
	err := p.object(metadataKey, func(key string) error {
		value, err := p.text(fmt.Sprintf("metadata %q", key))
		meta = append(meta, tensor.KV{Key: key, Value: value})
		return err
	})
	return meta, err
}

// entry reads the value of a tensor's name.
func (p parser) entry(name string) (placed, error) {
	t := placed{info: tensor.Info{Name: name}}
	what := "tensor " + strconv.Quote(name)
	var dtype string
	var offsets []int64
	err := p.object(what, func(field string) (err error) {
		switch field {
		case "dtype":
			dtype, err = p.text(what + ": dtype")
		case "shape":
			t.info.Shape, err = p.numbers(what + ": shape")
		case "data_offsets":
			offsets, err = p.numbers(what + ": data_offsets")
		default:
			err = malformed(name, "unknown field %q", field)
		}
		return err
	})
	switch {
	case err != nil:
		return t, err
	case dtype == "":
		return t, malformed(name, "no dtype")
	case t.info.Shape == nil:
		return t, malformed(name, "no shape")
	case len(offsets) != 2:
		return t, malformed(name, "%d data_offsets, there must be 2", len(offsets))
	}
	t.begin, t.end = offsets[0], offsets[1]
	if t.info.DType, err = tensor.ParseDType(dtype); err != nil || !holds(t.info.DType) {
		return t, fmt.Errorf("tensor %q: %w: dtype %q is not one of safetensors", name, tensor.ErrUnsupported, dtype)
	}
	return t, nil
}

// object reads an object, calling member after each name to read its value.
func (p parser) object(what string, member func(name string) error) error {
	if err := p.want('{', what, "an object"); err != nil {
		return err
	}
	for {
		tok, err := p.ReadToken()
		if err != nil {
			return err
		}
		if tok.Kind() == '}' {
			return nil
		}
		if err := member(tok.String()); err != nil {
			return err
		}
	}
}

// numbers reads an array of integers from 0 to the largest int64. It is never
// nil.
func (p parser) numbers(what string) ([]int64, error) {
	if err := p.want('[', what, "an array"); err != nil {
		return nil, err
	}
	list := []int64{}
	for {
		tok, err := p.ReadToken()
		if err != nil {
			return nil, err
		}
		if tok.Kind() == ']' {
			return list, nil
		}
		if tok.Kind() != '0' {
			return nil, fmt.Errorf("%s: %w: %v where there must be a number", what, tensor.ErrMalformed, tok.Kind())
		}
		text := tok.String()
		n, err := tok.Uint()
		if err != nil || n > math.MaxInt64 {
			return nil, fmt.Errorf("%s: %w: %s is not an integer from 0 to %d", what, tensor.ErrMalformed, text, int64(math.MaxInt64))
		}
		list = append(list, int64(n))
	}
}

func (p parser) text(what string) (string, error) {
	tok, err := p.ReadToken()
	if err != nil {
		return "", err
	}
	if tok.Kind() != '"' {
		return "", fmt.Errorf("%s: %w: %v where there must be a string", what, tensor.ErrMalformed, tok.Kind())
	}
	return tok.String(), nil
}

func (p parser) want(kind jsontext.Kind, what, name string) error {
	tok, err := p.ReadToken()
	if err == nil && tok.Kind() != kind {
		err = fmt.Errorf("%s: %w: %v where there must be %s", what, tensor.ErrMalformed, tok.Kind(), name)
	}
	return err
}

// encodeHeader returns the length and the JSON of a header, padded with spaces
// to at least size bytes in all and to a multiple of 8, as the reference
// implementation does, so that what is aligned in the data is so in the file.
func encodeHeader(meta tensor.Meta, list []placed, size int) ([]byte, error) {
	b := append(make([]byte, lengthSize), '{')
	comma := func() {
		if b[len(b)-1] != '{' {
			b = append(b, ',')
		}
	}
	quote := func(s string) (err error) {
		b, err = jsontext.AppendQuote(b, s)
		return err
	}
	if len(meta) > 0 {
		b = append(b, `"`+metadataKey+`":{`...)
		for _, kv := range meta {
			comma()
			if err := quote(kv.Key); err != nil {
				return nil, fmt.Errorf("metadata %q: %w: the key: %w", kv.Key, tensor.ErrUnsupported, err)
			}
			b = append(b, ':')
			value, ok := kv.Value.(string)
			if !ok {
				return nil, fmt.Errorf("metadata %q: %w: safetensors holds strings, not %T", kv.Key, tensor.ErrUnsupported, kv.Value)
			}
			if err := quote(value); err != nil {
				return nil, fmt.Errorf("metadata %q: %w: the value: %w", kv.Key, tensor.ErrUnsupported, err)
			}
		}
		b = append(b, '}')
	}
	for _, t := range list {
		comma()
		if err := quote(t.info.Name); err != nil {
			return nil, fmt.Errorf("tensor %q: %w: the name: %w", t.info.Name, tensor.ErrUnsupported, err)
		}
		b = append(b, `:{"dtype":"`+t.info.DType.String()+`","shape":`...)
		b = appendNumbers(b, t.info.Shape...)
		b = append(b, `,"data_offsets":`...)
		b = appendNumbers(b, t.begin, t.end)
		b = append(b, '}')
	}
	b = append(b, '}')
	for len(b) < size || len(b)%8 != 0 {
		b = append(b, ' ')
	}
	n := len(b) - lengthSize
	if n > maxHeader {
		return nil, fmt.Errorf("%w: a header of %d bytes is over safetensors' limit of %d", tensor.ErrUnsupported, n, maxHeader)
	}
	binary.LittleEndian.PutUint64(b, uint64(n))
	return b, nil
}

func appendNumbers(b []byte, list ...int64) []byte {
	b = append(b, '[')
	for i, n := range list {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendInt(b, n, 10)
	}
	return append(b, ']')
}
