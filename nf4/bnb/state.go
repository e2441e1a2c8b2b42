package bnb

import (
	"bytes"
	"fmt"
	"io"

	"github.com/go-json-experiment/json"

	"github.com/seed18967229/nibble/internal/python"
	"github.com/seed18967229/nibble/tensor"
)

// nestedBlock is the only block size of double quantization there is.
const nestedBlock = 256

// state is the text of a quant_state tensor: what bitsandbytes keeps of a weight
// that is not a tensor. Fields are pointers so that a missing one shows.
type state struct {
	QuantType    *string       `json:"quant_type"`
	BlockSize    *int64        `json:"blocksize"`
	DType        *string       `json:"dtype"`
	Shape        *tensor.Shape `json:"shape"`
	NestedBlock  *int64        `json:"nested_blocksize"`
	NestedDType  *string       `json:"nested_dtype"`
	NestedOffset *float64      `json:"nested_offset"`
}

// readState reads and checks a quant_state tensor.
func readState(src tensor.Source, info tensor.Info, nested bool) (*state, error) {
	if size := info.Size(); info.DType != tensor.U8 || size > tensor.MaxLate {
		return nil, fmt.Errorf("%w: %d bytes of %v, want at most %d of U8", tensor.ErrMalformed, size, info.DType, tensor.MaxLate)
	}
	r, err := src.Raw(info.Name)
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	return parseState(text, nested)
}

// parseState reads the JSON as QuantState.from_dict does: these keys and no
// others. The nested ones count if there are tensors of double quantization
// (nested). Unlike there, a key may not occur twice.
func parseState(text []byte, nested bool) (*state, error) {
	var s state
	if err := json.Unmarshal(text, &s, json.RejectUnknownMembers(true)); err != nil {
		return nil, fmt.Errorf("%w: %w", tensor.ErrMalformed, err)
	}
	if !nested {
		s.NestedBlock, s.NestedDType, s.NestedOffset = nil, nil, nil
	}
	for _, f := range []struct {
		key     string
		missing bool
	}{
		{"quant_type", s.QuantType == nil}, {"blocksize", s.BlockSize == nil}, {"dtype", s.DType == nil},
		{"nested_blocksize", nested && s.NestedBlock == nil}, {"nested_dtype", nested && s.NestedDType == nil},
		{"nested_offset", nested && s.NestedOffset == nil},
	} {
		if f.missing {
			return nil, fmt.Errorf("%w: no %s", tensor.ErrMalformed, f.key)
		}
	}
	switch {
	case dtypes[*s.DType] == tensor.Invalid:
		return nil, fmt.Errorf("%w: dtype %q, want float32, float16 or bfloat16", tensor.ErrUnsupported, *s.DType)
	case nested && *s.NestedBlock != nestedBlock:
		return nil, fmt.Errorf("%w: nested_blocksize %d, want %d", tensor.ErrUnsupported, *s.NestedBlock, nestedBlock)
	case nested && *s.NestedDType != "float32":
		return nil, fmt.Errorf("%w: nested_dtype %q, want float32", tensor.ErrUnsupported, *s.NestedDType)
	}
	if s.Shape == nil {
		return &s, nil // it can be null
	}
	return &s, s.Shape.Validate()
}

// stateText writes the JSON as Python's json.dumps does. offset is nil without
// double quantization.
func stateText(kind string, blockSize int, dtype string, shape tensor.Shape, offset *float32) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, `{"quant_type": "%s", "blocksize": %d, "dtype": "%s", "shape": %v`, kind, blockSize, dtype, shape)
	if offset != nil {
		fmt.Fprintf(&b, `, "nested_blocksize": %d, "nested_dtype": "float32", "nested_offset": %s`, nestedBlock, python.AppendFloat(nil, float64(*offset)))
	}
	b.WriteByte('}')
	return b.Bytes()
}
