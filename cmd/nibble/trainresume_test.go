package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestResumeOverAnotherBase refuses to go on over a base that is not what it was, and goes
// on over one that was moved. A checkpoint that does not say what it had is taken.
func TestResumeOverAnotherBase(t *testing.T) {
	dir := workspace(t)
	rows(t, dir)
	at := func(name string) string { return filepath.Join(dir, name) }
	over := func(model string, more ...string) []string {
		args := trainIn(dir, "out", more...)
		args[2] = at(model)
		return args
	}
	ok(t, over("stories260K", "--iters", "4")...)
	ok(t, "merge", "--base", at("stories260K"), "--adapter", at("out"), "--out", at("merged"))
	ok(t, "quantize", at("stories260K"), at("nf4"), "--type", "nf4")
	resume := []string{"--resume", at("out")}
	before := readFile(t, at("out/"+logName))
	for model, says := range map[string]string{
		"merged": "the base, merged, has 47 tensors as that of the run had, stories260K, but other numbers",
		"nf4":    "but that of the run, stories260K, had 47 of ",
	} {
		o := nibble(t, over(model, resume...)...)
		require.NotEqual(t, exitDone, o.code)
		require.Contains(t, o.stderr, says)
		require.Contains(t, o.stderr, "resume with the --model of the first run")
		require.Equal(t, before, readFile(t, at("out/"+logName)), "nothing is touched")
	}
	state := at("out/checkpoint-4/" + stateName)
	text := readFile(t, state)
	from, to := strings.Index(text, `"base": {`), strings.Index(text, `"eval_loss"`)
	require.True(t, from > 0 && to > from, text)
	require.NoError(t, os.CopyFS(at("old"), os.DirFS(at("out"))))
	require.NoError(t, os.WriteFile(filepath.Join(at("old"), "checkpoint-4", stateName), []byte(text[:from]+text[to:]), 0o600))
	args := over("merged", "--resume", at("old"))
	args[6] = at("old")
	ok(t, args...)

	require.NoError(t, os.Rename(at("stories260K"), at("elsewhere")))
	ok(t, over("elsewhere", resume...)...)
	require.Contains(t, readFile(t, at("out/checkpoint-12/"+stateName)), `"name": "elsewhere"`)
}
