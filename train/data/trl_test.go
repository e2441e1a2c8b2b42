package data_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/seed18967229/nibble/formats/vocab"
	"github.com/seed18967229/nibble/train/data"
	"github.com/seed18967229/nibble/train/data/chat"
	"github.com/seed18967229/nibble/train/data/tokenizer"
	"github.com/stretchr/testify/require"
)

// trl is what testdata/gen/trl_goldens.py wrote.
type trl struct {
	Cases []struct {
		Name, Tokenizer, File string
		MaxSeqLength          int `json:"max_seq_length"`
		Flags                 struct {
			MaskPrompt   *bool  `json:"mask-prompt"`
			ChatTemplate string `json:"chat-template"`
		}
		Rows []struct {
			Tokens  []int32
			Trained []int // where loss begins and ends, in turn
		}
	}
	Packings []struct {
		Capacity int
		Lengths  []int
		Packs    [][]int32
	}
}

const trlDir = "../../testdata/trl"

func readTRL(t *testing.T) (g trl) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(trlDir, "goldens.json"))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(b, &g))
	return g
}

// qwen is the tokenizer of the small Qwen 2 and its chat template.
func qwen(t testing.TB) (*tokenizer.Tokenizer, string) {
	t.Helper()
	v, err := vocab.OpenDir("../../testdata/families/qwen2", vocab.Options{Size: 512})
	require.NoError(t, err)
	tok, err := tokenizer.New(v)
	require.NoError(t, err)
	return tok, v.ChatTemplate
}

func parseTemplate(t testing.TB, source string) *chat.Template {
	t.Helper()
	tmpl, err := chat.Parse(source)
	require.NoError(t, err)
	return tmpl
}

// trained returns where loss begins and ends in an example.
func trained(e data.Example) (at []int) {
	inside := false
	for j := range e.Tokens {
		if loss := e.Loss == nil || e.Loss[j]; loss != inside {
			inside = loss
			at = append(at, j)
		}
	}
	if inside {
		at = append(at, len(e.Tokens))
	}
	return at
}

// Rows become the tokens and the labels that TRL's SFTTrainer makes of them.
func TestRowsAsTRL(t *testing.T) {
	qwen, template := qwen(t)
	for _, c := range readTRL(t).Cases {
		t.Run(c.Tokenizer+" "+c.Name, func(t *testing.T) {
			o := data.Options{Tokenizer: stories(t), MaxSeqLength: c.MaxSeqLength, ParseSpecial: true}
			if c.Tokenizer == "qwen2" {
				o.Tokenizer, o.Template = qwen, parseTemplate(t, template)
			}
			if name := c.Flags.ChatTemplate; name != "" {
				source, err := os.ReadFile(filepath.Join(trlDir, name))
				require.NoError(t, err)
				o.Template = parseTemplate(t, string(source))
			}
			if c.Flags.MaskPrompt != nil {
				o.Mask = data.NoMask
			}
			s, err := data.Open(filepath.Join(trlDir, c.File), o)
			require.NoError(t, err)
			defer s.Close()
			examples := all(t, s.Train)
			require.Len(t, examples, len(c.Rows))
			for i, e := range examples {
				want := c.Rows[i]
				require.Equal(t, want.Tokens, e.Tokens, "row %d", i+1)
				if c.Name == "prompts that are turns" {
					// TRL trains from where a generation prompt ends, and the line end behind the
					// turn; its own template for assistant_only_loss begins with the line end before.
					require.Equal(t, []int{want.Trained[0] - 1, want.Trained[1]}, trained(e), "row %d", i+1)
					continue
				}
				require.Equal(t, want.Trained, trained(e), "row %d", i+1)
			}
		})
	}
}

// A template that does not mark what the assistant says is trained on the same, but for
// the line ends around it that TRL's marks include.
func TestTurnsFoundAsTRL(t *testing.T) {
	qwen, template := qwen(t)
	for _, c := range readTRL(t).Cases {
		if c.Name != "chats" {
			continue
		}
		o := data.Options{Tokenizer: qwen, MaxSeqLength: c.MaxSeqLength, Template: parseTemplate(t, template), Overlong: data.Truncate}
		marked, err := os.ReadFile(filepath.Join(trlDir, c.Flags.ChatTemplate))
		require.NoError(t, err)
		plain := withoutMarks(string(marked))
		require.NotEqual(t, string(marked), plain)
		o.Template = parseTemplate(t, plain)
		s, err := data.Open(filepath.Join(trlDir, c.File), o)
		require.NoError(t, err)
		defer s.Close()
		for i, e := range all(t, s.Train) {
			want, got := c.Rows[i], trained(e)
			require.Equal(t, want.Tokens, e.Tokens)
			require.Len(t, got, len(want.Trained))
			for k := 0; k < len(got); k += 2 {
				require.Equal(t, want.Trained[k]+1, got[k], "row %d", i+1)
				if want.Trained[k+1] < c.MaxSeqLength {
					require.Equal(t, want.Trained[k+1]-1, got[k+1], "row %d", i+1)
				}
			}
		}
	}
}

// withoutMarks removes the generation markers of a template, and not what they do to
// the space around them.
var withoutMarks = strings.NewReplacer("{%- generation %}", "{%- if true %}", "{%- endgeneration %}", "{%- endif %}").Replace

// Documents are packed as TRL's best fit decreasing packs them.
func TestPackingAsTRL(t *testing.T) {
	for _, p := range readTRL(t).Packings {
		docs, ends := data.Pack(len(p.Lengths), p.Capacity, func(i int) int { return p.Lengths[i] })
		var got [][]int32
		from := int32(0)
		for _, to := range ends {
			got = append(got, docs[from:to])
			from = to
		}
		require.Equal(t, p.Packs, got, "capacity %d", p.Capacity)
	}
}
