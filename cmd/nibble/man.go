package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"github.com/seed18967229/nibble/internal/fsx"
)

func (a *app) manCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "man DIR",
		Short:   "Write manual pages",
		Long:    "Write the manual page of every command into DIR, to be put where man looks for section 1.",
		Example: "  nibble man ~/.local/share/man/man1 && man nibble-train",
		Args:    exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o777); err != nil {
				return err
			}
			root := cmd.Root()
			root.DisableAutoGenTag = true // the same pages each time
			header := &doc.GenManHeader{Section: "1", Source: "nibble " + version, Manual: "nibble"}
			n, err := writePages(root, header, args[0])
			if err != nil {
				return err
			}
			return a.print(&manResult{Dir: args[0], Pages: n})
		},
	}
}

type manResult struct {
	Dir   string `json:"dir"`
	Pages int    `json:"pages"`
}

func (r *manResult) text(w io.Writer) { fmt.Fprintf(w, "%s: %d pages\n", r.Dir, r.Pages) }

// writePages writes the page of a command and of those below it, and returns how many.
func writePages(cmd *cobra.Command, header *doc.GenManHeader, dir string) (n int, err error) {
	if !cmd.IsAvailableCommand() && cmd.HasParent() {
		return 0, nil
	}
	for _, c := range cmd.Commands() {
		m, err := writePages(c, header, dir)
		if err != nil {
			return 0, err
		}
		n += m
	}
	var page bytes.Buffer
	h := *header
	if err := doc.GenMan(cmd, &h, &page); err != nil {
		return 0, fmt.Errorf("%s: %w", cmd.CommandPath(), err)
	}
	name := strings.ReplaceAll(cmd.CommandPath(), " ", "-") + "." + header.Section
	return n + 1, fsx.WriteFile(filepath.Join(dir, name), page.Bytes(), true)
}
