package modelcard

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var derivation = Derivation{Bases: []string{"org/base", "a: b"}, Relation: "merge", Tags: []string{"small", "merge"}, Section: "## How\n\nThus.\n"}

const derived = "base_model:\n- org/base\n- \"a: b\"\nbase_model_relation: merge\n"

// TestDerive changes what a derivation says and nothing else.
func TestDerive(t *testing.T) {
	for name, c := range map[string]struct{ readme, want, note string }{
		"no card":         {"", "---\n" + derived + "tags:\n- small\n- merge\n---\n\n## How\n\nThus.\n", ""},
		"no front matter": {"# Title\n\nText\n\n\n", "---\n" + derived + "tags:\n- small\n- merge\n---\n# Title\n\nText\n\n## How\n\nThus.\n", ""},
		"a card": {
			"---\nlicense: mit # really\ntags: [tiny, \"small\"]\nbase_model: [x,\n y]\nlanguage:\n- en\n---\n\n# Title\n",
			"---\nlicense: mit # really\nlanguage:\n- en\n" + derived + "tags:\n- tiny\n- small\n- merge\n---\n\n# Title\n\n## How\n\nThus.\n", "",
		},
		"lists of both kinds": {
			"---\nbase_model:\n- old\nbase_model_relation: finetune\ntags:\n  - aa\n  - bb\nlicense: mit\n---\nText",
			"---\nlicense: mit\n" + derived + "tags:\n- aa\n- bb\n- small\n- merge\n---\nText\n\n## How\n\nThus.\n", "",
		},
		"one tag": {"---\ntags: solo\n---\n", "---\n" + derived + "tags:\n- solo\n- small\n- merge\n---\n\n## How\n\nThus.\n", ""},
		"lines of Windows": {
			"---\r\nlicense: mit\r\nbase_model: x\r\n---\r\nText\r\n",
			"---\nlicense: mit\r\n" + derived + "tags:\n- small\n- merge\n---\nText\r\n\n## How\n\nThus.\n", "",
		},
		"unreadable":  {"---\na: [\n---\n# Title\n", "---\na: [\n---\n# Title\n\n## How\n\nThus.\n", "stays as it is"},
		"not closed":  {"---\nlicense: mit", "---\nlicense: mit\n" + derived + "tags:\n- small\n- merge\n---\n\n## How\n\nThus.\n", ""},
		"only a rule": {"text\n---\nbase_model: x\n---\n", "---\n" + derived + "tags:\n- small\n- merge\n---\ntext\n---\nbase_model: x\n---\n\n## How\n\nThus.\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			text, notes := Derive([]byte(c.readme), derivation)
			if c.note == "" {
				require.Empty(t, notes)
			} else {
				require.Len(t, notes, 1)
				require.Contains(t, notes[0], c.note)
			}
			require.Equal(t, c.want, string(text))
			if c.note == "" {
				v, err := frontMatter(string(text), false)
				require.NoError(t, err)
				bases, _ := v.get("base_model")
				require.Len(t, bases.list, 2)
				require.Equal(t, "a: b", bases.list[1].text)
			}
		})
	}
}

// FuzzDerive keeps what it does not change, whatever a card holds.
func FuzzDerive(f *testing.F) {
	f.Add([]byte("---\nlicense: mit\ntags: [a]\n---\n# Title\n"))
	f.Add([]byte("---\n? a\n: b\n---\n"))
	f.Fuzz(func(t *testing.T, readme []byte) {
		text, notes := Derive(readme, derivation)
		require.True(t, strings.HasSuffix(string(text), derivation.Section))
		if _, err := frontMatter(string(text), false); err == nil && len(notes) == 0 && strings.HasPrefix(string(readme), "---\n") {
			before, err := frontMatter(string(readme), false)
			require.NoError(t, err)
			after, err := frontMatter(string(text), false)
			require.NoError(t, err)
			for key := range before.fields {
				if key != "tags" {
					_, ok := after.get(key)
					require.True(t, ok, "%q is gone", key)
				}
			}
		}
	})
}

func TestCell(t *testing.T) {
	require.Equal(t, `a \| b &lt;br>`, Cell("a |\n b <br>"))
}
