package records_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/train/data/records"
	"github.com/stretchr/testify/require"
)

func TestFind(t *testing.T) {
	for name, c := range map[string]struct {
		files              []string
		train, valid, test []string
		is                 error
		says               string
	}{
		"one":            {files: []string{"train.jsonl", "notes.txt", "train_old.jsonl", "train.jsonl.bak", "trainer.jsonl"}, train: []string{"train.jsonl"}},
		"three":          {files: []string{"train.csv.gz", "validation.parquet", "test.txt"}, train: []string{"train.csv.gz"}, valid: []string{"validation.parquet"}, test: []string{"test.txt"}},
		"val":            {files: []string{"train.json", "val.json"}, train: []string{"train.json"}, valid: []string{"val.json"}},
		"dev":            {files: []string{"Train.TSV", "dev.tsv"}, train: []string{"Train.TSV"}, valid: []string{"dev.tsv"}},
		"shards":         {files: []string{"train-00001-of-00003.parquet", "train-00000-of-00003.parquet", "train-00002-of-00003.parquet", "test-00000-of-00001.parquet"}, train: []string{"train-00000-of-00003.parquet", "train-00001-of-00003.parquet", "train-00002-of-00003.parquet"}, test: []string{"test-00000-of-00001.parquet"}},
		"data":           {files: []string{"README.md", "data/train-00000-of-00001-a09b74b3ef9c3b56.parquet", "data/validation-00000-of-00001-a09b74b3ef9c3b50.parquet"}, train: []string{"data/train-00000-of-00001-a09b74b3ef9c3b56.parquet"}, valid: []string{"data/validation-00000-of-00001-a09b74b3ef9c3b50.parquet"}},
		"numbers":        {files: []string{"train-10.jsonl.zst", "train-9.jsonl.zst"}, train: []string{"train-9.jsonl.zst", "train-10.jsonl.zst"}},
		"other format":   {files: []string{"train.jsonl", "train.xlsx"}, train: []string{"train.jsonl"}},
		"a folder":       {files: []string{"train.jsonl", "valid.jsonl/x"}, train: []string{"train.jsonl"}},
		"no train":       {files: []string{"valid.jsonl"}, valid: []string{"valid.jsonl"}, is: fs.ErrNotExist, says: "no train.jsonl or train.txt"},
		"nothing":        {is: fs.ErrNotExist, says: "no train.jsonl or train.txt"},
		"two formats":    {files: []string{"train.jsonl", "train.txt"}, is: tensor.ErrMalformed, says: "both train.jsonl and train.txt"},
		"also packed":    {files: []string{"train.jsonl", "train.jsonl.gz"}, is: tensor.ErrMalformed, says: "both train.jsonl and train.jsonl.gz"},
		"two names":      {files: []string{"train.jsonl", "val.jsonl", "valid.jsonl"}, is: tensor.ErrMalformed, says: "both val.jsonl and valid.jsonl"},
		"two places":     {files: []string{"train.jsonl", "data/train.jsonl"}, is: tensor.ErrMalformed, says: "both train.jsonl and data"},
		"with shards":    {files: []string{"train.parquet", "train-00000-of-00001.parquet"}, is: tensor.ErrMalformed, says: "both"},
		"two editions":   {files: []string{"train-00000-of-00001.parquet", "train-00000-of-00002.parquet", "train-00001-of-00002.parquet"}, is: tensor.ErrMalformed, says: "both"},
		"twice":          {files: []string{"train-00000-of-00001-a09b74b3ef9c3b56.parquet", "train-00000-of-00001-b09b74b3ef9c3b56.parquet"}, is: tensor.ErrMalformed, says: "both"},
		"one is missing": {files: []string{"train-00000-of-00003.parquet", "train-00002-of-00003.parquet"}, is: tensor.ErrMalformed, says: "file 00001 of 00003 is missing"},
		"last missing":   {files: []string{"train-00000-of-00002.parquet"}, is: tensor.ErrMalformed, says: "file 00001 of 00002 is missing"},
		"unread":         {files: []string{"train.jsonl", "valid.arrow"}, is: tensor.ErrUnsupported, says: "valid.arrow"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for _, f := range c.files {
				require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, f)), 0o755))
				require.NoError(t, os.WriteFile(filepath.Join(dir, f), []byte("x"), 0o644))
			}
			train, valid, test, err := records.Find(dir)
			if c.is != nil {
				require.ErrorIs(t, err, c.is)
				require.ErrorContains(t, err, c.says)
				require.NotEmpty(t, hint.Of(err))
				require.Empty(t, train)
				require.Len(t, valid, len(c.valid))
				return
			}
			require.NoError(t, err)
			for _, part := range []struct{ want, got []string }{{c.train, train}, {c.valid, valid}, {c.test, test}} {
				require.Len(t, part.got, len(part.want))
				for i := range part.want {
					require.Equal(t, filepath.Join(dir, filepath.FromSlash(part.want[i])), part.got[i])
				}
			}
		})
	}
	_, _, _, err := records.Find(filepath.Join(t.TempDir(), "none"))
	require.ErrorIs(t, err, fs.ErrNotExist)
}
