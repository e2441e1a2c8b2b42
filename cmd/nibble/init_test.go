package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// What init writes is what train takes, and suits the data.
func TestInit(t *testing.T) {
	dir := workspace(t)
	t.Chdir(dir)
	var short, uneven, chats strings.Builder
	for i := range 60 {
		fmt.Fprintf(&short, "{\"prompt\": \"Once %d\", \"completion\": \" upon\"}\n", i)
		fmt.Fprintf(&uneven, "{\"text\": %q}\n", strings.Repeat("a cat ", 1+i/50*100+i%3))
		fmt.Fprintf(&chats, "{\"messages\": [{\"role\": \"user\", \"content\": \"Hi %d\"}, {\"role\": \"assistant\", \"content\": \"Yes\"}]}\n", i)
	}
	long := short.String() + fmt.Sprintf("{\"prompt\": %q, \"completion\": \"x\"}\n", strings.Repeat("cat sat ", 1000))
	for name, text := range map[string]string{"short": short.String(), "uneven": uneven.String(), "chats": chats.String(), "long": long} {
		require.NoError(t, os.WriteFile(name+".jsonl", []byte(text), 0o666))
	}
	for data, want := range map[string][]string{
		"shakespeare":  {"max_seq_length: 512", "batch_size: 4", "# windows of text", "epochs: 1.0"},
		"short.jsonl":  {"max_seq_length: 64", "val_split: 0.05", "epochs: 3.0", "# QLoRA"},
		"uneven.jsonl": {"packing: bfd", "val_split: 0.05"},
		"chats.jsonl":  {"chat_template: chatml", "max_seq_length: 64"},
		"long.jsonl":   {"overlong: drop", "# 1 examples are longer than the model's context"},
	} {
		t.Run(data, func(t *testing.T) {
			model := "stories260K"
			if data == "short.jsonl" {
				model = "nf4"
				ok(t, "quantize", "stories260K", model, "--type", "nf4")
			}
			name := filepath.Base(data) + ".yaml"
			ok(t, "init", "--model", model, "--data", data, "--out", name, "--output-dir", "out-"+data)
			text := readFile(t, name)
			for _, w := range want {
				require.Contains(t, text, w)
			}
			require.Contains(t, ok(t, "train", "--config", name, "--dry-run"), "trainable:")
			ok(t, "train", "--config", name, "--iters", "1", "--batch-size", "2", "--max-seq-length", "64", "--val-batches", "1", "--overlong", "drop")
			o := nibble(t, "init", "--model", model, "--data", data, "--out", name)
			require.NotEqual(t, exitDone, o.code, "a file that is there is not replaced")
		})
	}
	o := nibble(t, "init", "--model", "stories260K", "--data", "none")
	require.NotEqual(t, exitDone, o.code)
	require.NoFileExists(t, "train.yaml")
}
