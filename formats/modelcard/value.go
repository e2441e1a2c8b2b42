package modelcard

import (
	"bytes"
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// A value is one of YAML or JSON with the type that Python gives it.
type value struct {
	kind kind

	// text is a string, and the spelling of any other scalar.
	text string

	list   []*value
	fields map[string]*value // of a mapping, those whose key is a string
}

type kind uint8

const (
	null kind = iota
	boolean
	integer
	float
	str
	list
	mapping
	other // a date, a tag of YAML that is not known
)

// kinds are how messages name them.
var kinds = [...]string{"null", "a truth value", "a number", "a number", "text", "a list", "a mapping", "a date or the like"}

func (k kind) String() string { return kinds[k] }

// get returns a member of a mapping and whether it is there.
func (v *value) get(key string) (*value, bool) {
	if v == nil {
		return nil, false
	}
	m, ok := v.fields[key]
	return m, ok
}

// empty reports whether Python takes the value for false; the reference writes
// no such string.
func (v *value) empty() bool {
	switch v.kind {
	case null:
		return true
	case boolean:
		return !truths[strings.ToLower(v.text)]
	case integer:
		n := v.integer()
		return n != nil && n.Sign() == 0
	case float:
		return v.float() == 0
	case str:
		return v.text == ""
	case list:
		return len(v.list) == 0
	case mapping:
		return len(v.fields) == 0
	}
	return false
}

// truths are YAML 1.1's words, in lower case.
var truths = map[string]bool{"true": true, "yes": true, "on": true, "false": false, "no": false, "off": false}

// integer reads the spelling of an integer in YAML 1.1, nil if it is none.
func (v *value) integer() *big.Int {
	s := strings.ReplaceAll(v.text, "_", "")
	digits := strings.TrimLeft(s, "+-")
	base := 10
	switch {
	case len(s) > 4300: // Python's own limit
		return nil
	case strings.HasPrefix(digits, "0b"):
		digits, base = digits[2:], 2
	case strings.HasPrefix(digits, "0x"):
		digits, base = digits[2:], 16
	case strings.HasPrefix(digits, "0") && len(digits) > 1:
		base = 8
	}
	n := new(big.Int)
	for i, p := range strings.Split(digits, ":") { // 1:30 is ninety
		d, ok := new(big.Int).SetString(p, base)
		if !ok || i > 8 {
			return nil
		}
		n.Add(n.Mul(n, big.NewInt(60)), d)
	}
	if strings.HasPrefix(s, "-") {
		n.Neg(n)
	}
	return n
}

// float reads the spelling of a number in YAML 1.1 or JSON, NaN if it is none.
func (v *value) float() float64 {
	if v.kind == integer {
		if n := v.integer(); n != nil {
			f, _ := new(big.Float).SetInt(n).Float64()
			return f
		}
		return math.NaN()
	}
	s := strings.ToLower(strings.ReplaceAll(v.text, "_", ""))
	negative := strings.HasPrefix(s, "-")
	f := 0.0
	for _, p := range strings.Split(strings.TrimLeft(s, "+-"), ":") {
		d, err := strconv.ParseFloat(strings.Replace(strings.Replace(p, ".inf", "inf", 1), ".nan", "nan", 1), 64)
		if err != nil && !math.IsInf(d, 0) {
			return math.NaN()
		}
		f = f*60 + d
	}
	if negative {
		f = -f
	}
	return f
}

// parseJSON reads JSON text. Like Python it takes the last of members with the
// same name.
func parseJSON(text []byte) (*value, error) {
	dec := jsontext.NewDecoder(bytes.NewReader(text), jsontext.AllowDuplicateNames(true))
	v, err := readJSON(dec, 0)
	if err != nil {
		return nil, err
	}
	if _, err := dec.ReadToken(); err == nil {
		return nil, fmt.Errorf("there is more after the value")
	}
	return v, nil
}

// maxDepth bounds how deep lists and mappings nest. What is used of them lies at
// most three deep.
const maxDepth = 200

func readJSON(dec *jsontext.Decoder, depth int) (*value, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("nested more than %d deep", maxDepth)
	}
	tok, err := dec.ReadToken()
	if err != nil {
		return nil, err
	}
	switch tok.Kind() {
	case 'n':
		return &value{kind: null, text: "null"}, nil
	case 't', 'f':
		return &value{kind: boolean, text: tok.String()}, nil
	case '"':
		return &value{kind: str, text: tok.String()}, nil
	case '0':
		v := &value{kind: integer, text: tok.String()}
		if strings.ContainsAny(v.text, ".eE") {
			v.kind = float
		}
		return v, nil
	case '[':
		v := &value{kind: list}
		for dec.PeekKind() != ']' {
			e, err := readJSON(dec, depth+1)
			if err != nil {
				return nil, err
			}
			v.list = append(v.list, e)
		}
		_, err = dec.ReadToken()
		return v, err
	}
	v := &value{kind: mapping, fields: make(map[string]*value)}
	for dec.PeekKind() != '}' {
		key, err := dec.ReadToken()
		if err != nil {
			return nil, err
		}
		name := key.String()
		if v.fields[name], err = readJSON(dec, depth+1); err != nil {
			return nil, err
		}
	}
	_, err = dec.ReadToken()
	return v, err
}

// spelling returns the text of a scalar, in which what is not UTF-8 is replaced.
func (v *value) spelling() string {
	if utf8.ValidString(v.text) {
		return v.text
	}
	return strings.ToValidUTF8(v.text, "\ufffd")
}
