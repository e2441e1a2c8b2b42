package hf

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/tensor"
)

// TestEditKeepsBytes edits nothing in what transformers wrote.
func TestEditKeepsBytes(t *testing.T) {
	for _, name := range []string{ConfigName, IndexName, "generation_config.json"} {
		text := get(t, "testdata/sharded", name)
		got, err := Edit([]byte(text), nil, nil)
		require.NoError(t, err)
		require.Equal(t, text, string(got))
	}
}

func TestEdit(t *testing.T) {
	text := `{"eps":1e-05,"big":12345678901234567890.50,"name":"\u00e9\/é","list":[1,[],{}],"gone":{"x":null},"dtype":"float32"}`
	got, err := Edit([]byte(text), []Field{
		{"quantization_config", []byte(`{"quant_method":"bitsandbytes","llm_int8_skip_modules":["lm_head"]}`)},
		{"dtype", []byte(`"bfloat16"`)},
		{"n\u00ef\"", []byte(` 1.0 `)},
	}, []string{"gone", "never there"})
	require.NoError(t, err)
	require.Equal(t, `{
  "eps": 1e-05,
  "big": 12345678901234567890.50,
  "name": "\u00e9\/é",
  "list": [
    1,
    [],
    {}
  ],
  "dtype": "bfloat16",
  "quantization_config": {
    "quant_method": "bitsandbytes",
    "llm_int8_skip_modules": [
      "lm_head"
    ]
  },
  "nï\"": 1.0
}
`, string(got))

	got, err = Edit([]byte(`{"a":1,"b":2}`), []Field{{"a", []byte("3")}}, []string{"a"})
	require.NoError(t, err)
	require.Equal(t, "{\n  \"b\": 2,\n  \"a\": 3\n}\n", string(got))

	// A dot leads into an object, and into nothing else.
	got, err = Edit([]byte(`{"text":{"x":1e-05,"q":{"a":1}},"q":[{"q":1}],"text.z":3,"a.b":4}`), nil, []string{"text.q", "q.q", "none.q", "text.z", "a."})
	require.NoError(t, err)
	require.Equal(t, "{\n  \"text\": {\n    \"x\": 1e-05\n  },\n  \"q\": [\n    {\n      \"q\": 1\n    }\n  ],\n  \"a.b\": 4\n}\n", string(got))

	got, err = Edit([]byte("{}"), nil, nil)
	require.NoError(t, err)
	require.Equal(t, "{}\n", string(got))
}

func TestEditErrors(t *testing.T) {
	for _, text := range []string{``, `[]`, `1`, `{`, `{"a":}`, `{"a":1,"a":2}`, `{"a":1} x`, "{\"\xff\":1}", `{"a":NaN}`, `{"b":{"a":1,"a":2}}`} {
		_, err := Edit([]byte(text), nil, nil)
		require.ErrorIs(t, err, tensor.ErrMalformed, "%s", text)
	}
	for _, f := range []Field{{"a", nil}, {"a", []byte("nope")}, {"a", []byte(`1,"b":2`)}, {"\xff", []byte("1")}} {
		_, err := Edit([]byte(`{}`), []Field{f}, nil)
		require.Error(t, err, "%v", f)
	}
}

// compact drops white space and keeps the spelling of everything else.
func compact(t testing.TB, text []byte) string {
	t.Helper()
	var b bytes.Buffer
	require.NoError(t, json.Compact(&b, text))
	return b.String()
}

// FuzzEdit checks that an edit changes what it is told to and nothing else.
func FuzzEdit(f *testing.F) {
	f.Add(get(f, "testdata/sharded", ConfigName))
	f.Add(`{"a":[1e-05,{"b":"\u00e9\\"}],"x":1}`)
	f.Add(`{"x":{"x":{}},"y":-0.0}`)
	f.Fuzz(func(t *testing.T, text string) {
		got, err := Edit([]byte(text), []Field{{"x", []byte("[1]")}}, []string{"a"})
		if err != nil {
			return
		}
		var was, is map[string]json.RawMessage
		require.NoError(t, json.Unmarshal([]byte(text), &was))
		require.NoError(t, json.Unmarshal(got, &is))
		delete(was, "a")
		was["x"] = json.RawMessage("[1]")
		require.Len(t, is, len(was))
		for name, value := range was {
			require.Equal(t, compact(t, value), compact(t, is[name]), "%s", name)
		}
		twice, err := Edit(got, nil, nil)
		require.NoError(t, err)
		require.Equal(t, got, twice)
	})
}
