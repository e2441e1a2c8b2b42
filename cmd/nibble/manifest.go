package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/seed18967229/nibble/internal/fsx"
	"github.com/seed18967229/nibble/internal/safeio"
	"github.com/seed18967229/nibble/tensor"
)

// maxManifest is the largest manifest in bytes that is read.
const maxManifest = 16 << 20

// A checksum is a line of a manifest: the SHA-256 of a file, and its name
// relative to the model's directory, with slashes.
type checksum struct{ sum, name string }

// modelFiles returns the directory of a model and the names of its files: all
// below a directory but those that are hidden, or a single file and what it is
// split into.
func modelFiles(path string) (dir string, names []string, err error) {
	st, err := os.Stat(path)
	if err != nil {
		return "", nil, err
	}
	if !st.IsDir() {
		dir = filepath.Dir(path)
		names, err = splitFiles(dir, filepath.Base(path))
		return dir, names, err
	}
	err = fs.WalkDir(os.DirFS(path), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return safeio.WithPath(filepath.Join(path, name), err)
		}
		if name != "." && strings.HasPrefix(d.Name(), ".") {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		st, err := os.Stat(filepath.Join(path, filepath.FromSlash(name))) // the Hugging Face cache links its files
		if err != nil {
			return safeio.WithPath(filepath.Join(path, name), err)
		}
		if st.Mode().IsRegular() {
			names = append(names, name)
		}
		return nil
	})
	slices.Sort(names)
	return path, names, err
}

// splitName is what llama.cpp calls the parts of a GGUF file.
var splitName = regexp.MustCompile(`^(.*-)[0-9]{5}(-of-[0-9]{5}\.gguf)$`)

// splitFiles returns the name of a file, or those of all parts if it is one.
func splitFiles(dir, name string) ([]string, error) {
	m := splitName.FindStringSubmatch(name)
	if m == nil {
		return []string{name}, nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, safeio.WithPath(dir, err)
	}
	var names []string
	for _, e := range entries {
		if p := splitName.FindStringSubmatch(e.Name()); p != nil && p[1] == m[1] && p[2] == m[2] {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// hashing computes the checksums of a model's files.
type hashing struct {
	manifest []checksum // to be compared with
	single   bool       // of a single file

	dir   string
	names []string
	bytes int64 // of all files
	found []checksum

	out *fsx.File // the manifest to be written
}

// prepareHashing reads the manifest, lists the files and begins the manifest
// that is to be written; what cannot be done shows before the work. The
// manifests themselves are no files of the model.
func (a *app) prepareHashing(path string, o verifyOptions) (h *hashing, err error) {
	h = new(hashing)
	if o.manifest == "" && o.write == "" {
		return h, nil
	}
	if o.manifest != "" {
		if h.manifest, err = readManifest(o.manifest); err != nil {
			return nil, err
		}
	}
	if h.dir, h.names, err = modelFiles(path); err != nil {
		return nil, err
	}
	h.single = h.dir != path
	var kept []string
	for _, name := range h.names {
		file := h.path(name)
		if o.write != "" && fsx.Same(file, o.write) {
			if _, err := readManifest(file); err != nil {
				return nil, badUsage(fsx.CheckOutput(o.write, file))
			}
			continue
		}
		if o.manifest != "" && fsx.Same(file, o.manifest) {
			continue
		}
		st, err := os.Stat(file)
		if err != nil {
			return nil, safeio.WithPath(file, err)
		}
		kept = append(kept, name)
		h.bytes += st.Size()
	}
	h.names = kept
	if o.write != "" {
		h.out, err = fsx.Create(o.write, a.force)
	}
	return h, err
}

func (h *hashing) path(name string) string { return filepath.Join(h.dir, filepath.FromSlash(name)) }

// run reads the files, several at a time. read is told of bytes as they are read.
func (h *hashing) run(ctx context.Context, read func(int64)) error {
	h.found = make([]checksum, len(h.names))
	errs := make([]error, len(h.names))
	next := make(chan int)
	var wg sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), len(h.names)) {
		wg.Go(func() {
			for i := range next {
				h.found[i].name = h.names[i]
				h.found[i].sum, errs[i] = safeio.SHA256(ctx, h.path(h.names[i]), read)
			}
		})
	}
	for i := range h.names {
		next <- i
	}
	close(next)
	wg.Wait()
	return errors.Join(errs...)
}

// write writes the manifest.
func (h *hashing) write() error {
	if _, err := h.out.WriteString(formatManifest(h.found)); err != nil {
		return err
	}
	return h.out.Commit()
}

// close removes the manifest that was begun and not written.
func (h *hashing) close() {
	if h.out != nil {
		h.out.Abort()
	}
}

// formatManifest writes checksums as sha256sum does, so that sha256sum -c reads
// them in the model's directory.
func formatManifest(list []checksum) string {
	var b strings.Builder
	for _, c := range list {
		escaped := escapeName.Replace(c.name)
		if escaped != c.name {
			b.WriteByte('\\')
		}
		fmt.Fprintf(&b, "%s  %s\n", c.sum, escaped)
	}
	return b.String()
}

// sha256sum marks a line in which the name is escaped with a backslash in front.
var (
	escapeName   = strings.NewReplacer(`\`, `\\`, "\n", `\n`, "\r", `\r`)
	unescapeName = strings.NewReplacer(`\\`, `\`, `\n`, "\n", `\r`, "\r")
)

// manifestLine is a line of sha256sum; a star stands for reading as binary, which
// makes no difference.
var manifestLine = regexp.MustCompile(`^(\\?)([0-9A-Fa-f]{64}) [ *](.+)$`)

// readManifest reads what sha256sum writes.
func readManifest(path string) ([]checksum, error) {
	text, err := safeio.ReadFile(path, maxManifest)
	if errors.Is(err, safeio.ErrRefused) {
		err = fmt.Errorf("%w: %w", tensor.ErrMalformed, err)
	}
	if err != nil {
		return nil, err
	}
	return parseManifest(path, string(text))
}

func parseManifest(path, text string) ([]checksum, error) {
	var out []checksum
	s := bufio.NewScanner(strings.NewReader(text))
	for n := 1; s.Scan(); n++ {
		if s.Text() == "" || strings.HasPrefix(s.Text(), "#") {
			continue
		}
		m := manifestLine.FindStringSubmatch(s.Text())
		if m == nil {
			return nil, fmt.Errorf("%s:%d: %w: %q is no line of sha256sum: 64 hexadecimal digits, two spaces, a name", path, n, tensor.ErrMalformed, s.Text())
		}
		name := m[3]
		if m[1] != "" {
			name = unescapeName.Replace(name)
		}
		name = strings.TrimPrefix(name, "./")
		if !filepath.IsLocal(filepath.FromSlash(name)) {
			return nil, fmt.Errorf("%s:%d: %w: the name %q leads out of the model's directory", path, n, tensor.ErrMalformed, name)
		}
		out = append(out, checksum{strings.ToLower(m[2]), name})
	}
	if err := s.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w: %w", path, tensor.ErrMalformed, err)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s: %w: there is no checksum in it", path, tensor.ErrMalformed)
	}
	return out, nil
}

// compareManifest reports files that are not what a manifest says, or that it
// says are there and are not; unlisted is how many it does not name. Of a single
// file only its own lines count.
func compareManifest(manifest, found []checksum, single bool, problem func(error)) (unlisted int) {
	sums := make(map[string]string)
	for _, c := range found {
		sums[c.name] = c.sum
	}
	listed := make(map[string]bool)
	for _, want := range manifest {
		listed[want.name] = true
		switch got, ok := sums[want.name]; {
		case !ok && !single:
			problem(fmt.Errorf("%q is in the manifest and not there", want.name))
		case ok && got != want.sum:
			problem(fmt.Errorf("%q has the SHA-256 %s, the manifest says %s", want.name, got, want.sum))
		}
	}
	for _, c := range found {
		switch {
		case listed[c.name]:
		case single:
			problem(fmt.Errorf("%q is not in the manifest", c.name))
		default:
			unlisted++
		}
	}
	return unlisted
}
