package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// commands returns the command lines of the fenced blocks of a page: what follows "$ ", with
// the lines that go on with "> ".
func commands(page string) (list []string) {
	for i, block := range strings.Split(page, "```") {
		if i%2 == 0 {
			continue
		}
		for _, line := range strings.Split(block, "\n") {
			if c, ok := strings.CutPrefix(line, "$ "); ok {
				list = append(list, c)
			} else if more, ok := strings.CutPrefix(line, "> "); ok && len(list) > 0 {
				list[len(list)-1] += "\n" + more
			}
		}
	}
	return list
}

// Every command of every page does what it is said to do: it succeeds, in the order of
// the page, in a directory with the demo's model and text.
func TestDocs(t *testing.T) {
	pages, err := filepath.Glob("../../docs/*.md")
	require.NoError(t, err)
	path := filepath.Dir(binary) + string(os.PathListSeparator) + os.Getenv("PATH")
	ran := 0
	for _, page := range pages {
		list := commands(readFile(t, page))
		ran += len(list)
		if len(list) == 0 {
			continue
		}
		t.Run(filepath.Base(page), func(t *testing.T) {
			t.Parallel()
			dir := workspace(t)
			for _, c := range list {
				cmd := exec.Command("sh", "-ec", c)
				cmd.Dir = dir
				cmd.Env = append(os.Environ(), "PATH="+path)
				out, err := cmd.CombinedOutput()
				require.NoError(t, err, "%s\n%s", c, out)
			}
		})
	}
	require.Greater(t, ran, 30)
}
