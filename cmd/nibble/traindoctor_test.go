package main

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestTrainExaminesTheData says before a run what would be learnt for nothing, and nothing
// of data that is sound. No example begins with BOS twice.
func TestTrainExaminesTheData(t *testing.T) {
	dir := workspace(t)
	silent := `{{ bos_token }}{% for m in messages if m.role != 'system' %}[{{ m.role }}] {{ m.content }}{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}{% if add_generation_prompt %}[assistant] {% endif %}`
	for name, c := range map[string]struct {
		template, rows string
		more           []string
		found          []string
	}{
		"sound":      {chatTemplates["good"], chatRow + systemRow, nil, nil},
		"two BOS":    {chatTemplates["two BOS"], chatRow, nil, []string{"double BOS"}},
		"no end":     {chatTemplates["no end"], chatRow, nil, []string{"end of text"}},
		"cut":        {chatTemplates["good"], chatRow, []string{"--max-seq-length", "28"}, []string{"end of text"}},
		"no system":  {silent, chatRow + systemRow, nil, []string{"system turns"}},
		"no systems": {silent, chatRow, nil, nil},
		"rows":       {chatTemplates["no end"], `{"text": "Once upon a time"}`, nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			sub := t.TempDir()
			put(t, filepath.Join(sub, "data.jsonl"), c.rows)
			put(t, filepath.Join(sub, "template"), c.template)
			args := append([]string{"train", "--model", filepath.Join(dir, "stories260K"), "--data", filepath.Join(sub, "data.jsonl"), "--output-dir", filepath.Join(sub, "out"),
				"--chat-template", filepath.Join(sub, "template"), "--iters", "1", "--max-seq-length", "128", "--rank", "2"}, c.more...)
			var r struct {
				Findings []finding
				Example  struct{ Tokens []int32 }
			}
			okJSON(t, &r, append(args, "--dry-run")...)
			var names []string
			for _, f := range r.Findings {
				names = append(names, f.Name)
			}
			require.Equal(t, c.found, names)
			require.Equal(t, int32(1), r.Example.Tokens[0])
			require.NotEqual(t, int32(1), r.Example.Tokens[1])
			if name == "cut" {
				require.Contains(t, r.Findings[0].Todo, "raise --max-seq-length")
			}
			o := nibble(t, args...)
			require.Equal(t, exitDone, o.code, o.stderr)
			for _, f := range r.Findings {
				require.Contains(t, o.stdout+o.stderr, "warning: "+f.Name+": "+f.Found)
			}
			if c.found == nil {
				require.NotContains(t, o.stdout+o.stderr, "warning")
			}
		})
	}
}
