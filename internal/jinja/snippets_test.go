package jinja_test

import (
	"encoding/json"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/internal/jinja"
)

// When jinja_goldens.py looked at the clock.
var now = time.Date(2026, 11, 26, 9, 8, 7, 654321000, time.UTC)

type snippet struct {
	Source         string
	Text           *string
	Error, Message string
}

func snippets(t testing.TB) (*jinja.Dict, []snippet) {
	raw, err := os.ReadFile("testdata/snippets.json")
	require.NoError(t, err)
	var file struct {
		Vars     json.RawMessage
		Snippets []snippet
	}
	require.NoError(t, json.Unmarshal(raw, &file))
	return value(t, jsontext.NewDecoder(strings.NewReader(string(file.Vars)))).(*jinja.Dict), file.Snippets
}

func value(t testing.TB, d *jsontext.Decoder) jinja.Value {
	tok, err := d.ReadToken()
	require.NoError(t, err)
	switch tok.Kind() {
	case 't', 'f':
		return tok.Bool()
	case '"':
		return tok.String()
	case '0':
		if s := tok.String(); !strings.ContainsAny(s, ".e") {
			n, err := strconv.ParseInt(s, 10, 64)
			require.NoError(t, err)
			return n
		}
		f, err := strconv.ParseFloat(tok.String(), 64)
		require.NoError(t, err)
		return f
	case '[':
		l := &jinja.List{}
		for d.PeekKind() != ']' {
			l.Items = append(l.Items, value(t, d))
		}
		_, err := d.ReadToken()
		require.NoError(t, err)
		return l
	case '{':
		o := jinja.NewDict()
		for d.PeekKind() != '}' {
			k, err := d.ReadToken()
			require.NoError(t, err)
			key := k.String()
			o.Set(key, value(t, d))
		}
		_, err := d.ReadToken()
		require.NoError(t, err)
		return o
	}
	return nil
}

func render(source string, vars *jinja.Dict) (string, error) {
	t, err := jinja.Parse(source)
	if err != nil {
		return "", err
	}
	r, err := t.Render(vars, jinja.Options{Now: now})
	return r.Text, err
}

// Errors that Python words otherwise: it names its own functions, or where in a format string it was.
var otherwise = []string{
	`{{ "%z" % 1 }}`, `{{ "{".format(1) }}`, `{{ "{:z}".format(1) }}`, `{{ range() }}`, `{{ dict([1]) }}`, `{{ raise_exception() }}`, `{{ s.upper(1) }}`,
	`{{ s.replace("a") }}`, `{{ s | replace("a") }}`, `{{ s | default(1, 2, 3) }}`, `{% break %}`,
	`{% for x in l %}{% generation %}{% break %}{% endgeneration %}{% endfor %}`,
}

// Small templates, one for each thing that Jinja and its values do: the text that Python makes, or its error.
func TestSnippetsRenderAsJinjaDoes(t *testing.T) {
	vars, all := snippets(t)
	require.Greater(t, len(all), 900)
	for _, s := range all {
		got, err := render(s.Source, vars)
		if s.Text != nil {
			require.NoError(t, err, s.Source)
			require.Equal(t, *s.Text, got, s.Source)
			continue
		}
		var e *jinja.Error
		require.ErrorAs(t, err, &e, "%s: %s: %s", s.Source, s.Error, s.Message)
		require.Positive(t, e.Line, s.Source)
		require.Positive(t, e.Column, s.Source)
		require.Equal(t, s.Error == "TemplateError", e.Kind == jinja.Raised, s.Source)
		if !slices.Contains(otherwise, s.Source) {
			require.Equal(t, s.Message, e.Message, s.Source)
		}
	}
}

func TestErrorsSayWhere(t *testing.T) {
	for source, want := range map[string]string{
		"a\n  {{ 1 + 'x' }}":                          "template line 2, column 8: unsupported operand type(s) for +: 'int' and 'str'",
		"é{{ raise_exception('no') }}":                "template line 1, column 20: no",
		"{% if 1 %}\n{% for x in [1] %}\n{% endif %}": "template line 3, column 4: Encountered unknown tag 'endif'. Jinja was looking for the following tags: 'endfor' or 'else'. The innermost block that needs to be closed is 'for'.",
		"\r\n\r\n{{ x | nope }}":                      "template line 3, column 8: No filter named 'nope'.",
		"{{ 9223372036854775807 + 1 }}":               "template line 1, column 24: the result is no integer of 64 bits",
		"{% include 'x' %}":                           "template line 1, column 4: {% include %} is refused: a chat template has nothing to load",
	} {
		_, err := render(source, jinja.NewDict())
		require.EqualError(t, err, want, source)
	}
}

// One template, rendered by several at once.
func TestConcurrentRendering(t *testing.T) {
	vars, _ := snippets(t)
	tm, err := jinja.Parse("{% for u in users | sort(attribute='name') %}{{ u | tojson(sort_keys=true) }}{{ loop.last }}{% endfor %}{{ d | dictsort }}{{ l[::-1] }}")
	require.NoError(t, err)
	want, err := tm.Render(vars, jinja.Options{})
	require.NoError(t, err)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 50 {
				got, err := tm.Render(vars, jinja.Options{})
				if err != nil || got.Text != want.Text {
					t.Errorf("%v: %q", err, got.Text)
				}
			}
		})
	}
	all.Wait()
}
