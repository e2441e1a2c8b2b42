package demo

import (
	"embed"
	"io/fs"
	"os"
	"path/filepath"
)

//go:embed README.md stories260K shakespeare
var files embed.FS

// Write writes the model and the text into a directory, as stories260K and
// shakespeare.
func Write(dir string) error {
	return fs.WalkDir(files, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		to := filepath.Join(dir, filepath.FromSlash(path))
		if d.IsDir() {
			return os.MkdirAll(to, 0o777)
		}
		b, err := files.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(to, b, 0o666)
	})
}
