package data_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/train/data"
	"github.com/stretchr/testify/require"
)

func TestFolder(t *testing.T) {
	o := data.Options{Tokenizer: stories(t), MaxSeqLength: 9}
	rows := `{"text": "Once upon a time"}`
	for name, c := range map[string]struct {
		files map[string]string
		is    error
		says  string
	}{
		"train only":       {map[string]string{"train.jsonl": rows, "notes.txt": "", "train_old.jsonl": "", "train.jsonl.bak": ""}, nil, ""},
		"text":             {map[string]string{"train.txt": "Once", "valid.txt": "upon", "test.jsonl": rows}, nil, ""},
		"rows named .json": {map[string]string{"train.json": rows}, nil, ""},
		"also compressed":  {map[string]string{"train.jsonl": rows, "train.jsonl.gz": "x"}, tensor.ErrMalformed, "both train.jsonl and train.jsonl.gz"},
		"no train":         {map[string]string{"valid.jsonl": rows}, fs.ErrNotExist, "no train.jsonl or train.txt"},
		"nothing":          {nil, fs.ErrNotExist, "no train.jsonl or train.txt"},
		"both":             {map[string]string{"train.jsonl": rows, "train.txt": "Once"}, tensor.ErrMalformed, "both train.jsonl and train.txt"},
		"archive":          {map[string]string{"train.zip": "x"}, tensor.ErrUnsupported, "train.zip"},
		"another format":   {map[string]string{"train.jsonl": rows, "valid.arrow": "x"}, tensor.ErrUnsupported, "valid.arrow"},
		"bad validation":   {map[string]string{"train.jsonl": rows, "valid.jsonl": "x"}, tensor.ErrMalformed, "valid.jsonl:1: "},
		"empty test":       {map[string]string{"train.jsonl": rows, "test.jsonl": "\n"}, tensor.ErrMalformed, "test.jsonl: malformed input: the file is empty"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for file, text := range c.files {
				require.NoError(t, os.WriteFile(filepath.Join(dir, file), []byte(text), 0o644))
			}
			s, err := data.Open(dir, o)
			if c.is != nil {
				require.ErrorIs(t, err, c.is)
				require.ErrorContains(t, err, c.says)
				require.Nil(t, s)
				return
			}
			require.NoError(t, err)
			require.NotNil(t, s.Train)
			require.Equal(t, name == "text", s.Valid != nil && s.Test != nil)
			require.NoError(t, s.Close())
		})
	}
}

func TestFileErrors(t *testing.T) {
	o := data.Options{Tokenizer: stories(t), MaxSeqLength: 9}
	for name, c := range map[string]struct {
		file, text string
		is         error
		says       string
	}{
		"empty":            {"x.jsonl", "", tensor.ErrMalformed, "the file is empty"},
		"only a BOM":       {"x.txt", "\ufeff", tensor.ErrMalformed, "the file is empty"},
		"blank":            {"x.txt", " \n\t ", tensor.ErrMalformed, "the file is empty"},
		"blank rows":       {"x.jsonl", strings.Repeat("\n", 100_000), tensor.ErrMalformed, "the file has no rows"},
		"UTF-16":           {"x.jsonl", "\xff\xfe{\x00", tensor.ErrMalformed, "UTF-16"},
		"UTF-16, reversed": {"x.txt", "\xfe\xff\x00a", tensor.ErrMalformed, "UTF-16"},
		"text, not UTF-8":  {"x.txt", "a\nb\nc\xff\nd", tensor.ErrMalformed, "x.txt:3: malformed input: text that is not UTF-8"},
		"text, cut off":    {"x.txt", "a\nb\xe6\x97", tensor.ErrMalformed, "x.txt:2: malformed input: text that is not UTF-8"},
		"text, NUL":        {"x.txt", "a\n\nb\x00", tensor.ErrMalformed, "x.txt:3: malformed input: a NUL byte"},
		"text, far away":   {"x.txt", strings.Repeat("日本\n", 100_000) + "\x80", tensor.ErrMalformed, "x.txt:100001: "},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := load(t, c.file, c.text, o)
			require.ErrorIs(t, err, c.is)
			require.ErrorContains(t, err, c.says)
			require.ErrorContains(t, err, c.file)
			require.NotEmpty(t, hint.Of(err))
		})
	}

	_, err := data.Open(filepath.Join(t.TempDir(), "none"), o)
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.NotEmpty(t, hint.Of(err))
	_, err = data.Open(os.DevNull, o)
	require.ErrorContains(t, err, "not a file")
	_, err = data.ReadText(filepath.Join(t.TempDir(), "none"), o.Tokenizer)
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = data.ReadText(os.DevNull, o.Tokenizer)
	require.ErrorContains(t, err, "not a file")
	_, err = data.Open("testdata/wikisql", data.Options{Tokenizer: o.Tokenizer, MaxSeqLength: 1})
	require.ErrorContains(t, err, "maximum sequence length 1")
}
