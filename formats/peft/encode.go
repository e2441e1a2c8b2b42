package peft

import (
	"fmt"
	"maps"
	"math"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/seed18967229/nibble/internal/python"
	"github.com/seed18967229/nibble/tensor"
)

// Encode returns the text of the configuration's adapter_config.json: every key
// that PEFT 0.21.2 writes and those unknown to it that were read, sorted,
// indented by two, numbers spelled as Python does, without a newline at the end.
// It is the same as PEFT's but for the order of module names, which there is
// that of a set.
func (c *Config) Encode() ([]byte, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	all := make(map[string]jsontext.Value)
	maps.Copy(all, c.other)
	for _, k := range keys() {
		text, err := k.text(c)
		if err != nil {
			return nil, err
		}
		all[k.name] = text
	}
	b, err := json.Marshal(all, json.Deterministic(true), jsontext.WithIndent("  "), jsontext.PreserveRawStrings(true))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", tensor.ErrMalformed, err)
	}
	return b, nil
}

// text returns the value of the key as compact JSON.
func (k key) text(c *Config) (jsontext.Value, error) {
	if k.field == nil {
		if v, ok := c.other[k.name]; ok {
			return v, nil
		}
		return jsontext.Value(k.def), nil
	}
	var v jsontext.Value
	var err error
	switch p := k.field(c).(type) {
	case *float64:
		// PEFT's type of lora_alpha is int, which a whole number stays.
		v = appendNumber(nil, *p, !strings.Contains(k.def, "."))
	case *string:
		if *p == "" && k.def == "null" {
			return jsontext.Value(k.def), nil
		}
		v, err = jsontext.AppendQuote(nil, *p)
	default:
		v, err = json.Marshal(p, json.FormatNilSliceAsNull(true))
	}
	if err != nil {
		err = fmt.Errorf("%s: %w: %w", k.name, tensor.ErrMalformed, err)
	}
	return v, err
}

// appendNumber appends a finite number as Python's json module spells it: the
// shortest digits that read back the same, with a point or an exponent unless
// whole numbers are to look like integers.
func appendNumber(b []byte, f float64, whole bool) []byte {
	if whole && f == math.Trunc(f) && math.Abs(f) < 1<<53 {
		return strconv.AppendInt(b, int64(f), 10)
	}
	return python.AppendFloat(b, f)
}
