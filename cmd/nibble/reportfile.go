package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/seed18967229/nibble/internal/fsx"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/report"
)

// reportFiles are the files that --report asks for.
type reportFiles struct {
	json, html string // "" if it is not wanted
}

// reportForms are the forms of a report by the end of a file's name.
var reportForms = map[string]func(f *reportFiles, path string){
	".json": func(f *reportFiles, path string) { f.json = path },
	".html": func(f *reportFiles, path string) { f.html = path },
	".htm":  func(f *reportFiles, path string) { f.html = path },
}

// parseReport reads the value of --report: a file, or a directory that both files are
// to be in. It checks what can be checked before the work.
func (a *app) parseReport(path string, inputs ...string) (*reportFiles, error) {
	if path == "" {
		return nil, nil
	}
	var f reportFiles
	st, err := os.Stat(path)
	switch ext := strings.ToLower(filepath.Ext(path)); {
	case err == nil && st.IsDir(), ext == "":
		if err == nil && !st.IsDir() {
			return nil, badUsage(fmt.Errorf("--report %s: is a file without an extension, and which report it is to be is not known", path))
		}
		f.json, f.html = filepath.Join(path, "report.json"), filepath.Join(path, "report.html")
	case reportForms[ext] != nil:
		reportForms[ext](&f, path)
	default:
		return nil, badUsage(hint.Add(fmt.Errorf("--report %s: no report ends in %s", path, ext), "give a name that ends in .html or .json, or a directory for both"))
	}
	for _, p := range f.paths() {
		if err := fsx.CheckOutput(p, inputs...); err != nil {
			return nil, badUsage(err)
		}
		if _, err := os.Lstat(p); err == nil && !a.force {
			return nil, hint.Add(fmt.Errorf("%s: %w", p, fsx.ErrExists), "choose another name for --report, or give --force to replace it")
		} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return &f, nil
}

// paths returns the files that are to be written.
func (f *reportFiles) paths() []string {
	if f == nil {
		return nil
	}
	var out []string
	for _, p := range []string{f.html, f.json} {
		if p != "" {
			out = append(out, p)
		}
	}
	return out
}

// writeReport writes what --report asks for.
func (a *app) writeReport(f *reportFiles, r *report.Report) error {
	if f == nil {
		return nil
	}
	for _, w := range []struct {
		path string
		make func() ([]byte, error)
	}{{f.html, r.HTML}, {f.json, r.JSON}} {
		if w.path == "" {
			continue
		}
		text, err := w.make()
		if err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Dir(w.path), 0o777); err != nil {
			return err
		}
		if err := fsx.WriteFile(w.path, text, a.force); err != nil {
			return err
		}
		a.note("report: %s", w.path)
	}
	return nil
}
