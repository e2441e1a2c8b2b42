package receipt

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/seed18967229/nibble/internal/safeio"
	"github.com/seed18967229/nibble/tensor"
)

// formatVersion is that of what the manifest says; a reader refuses others.
const formatVersion = 1

// maxManifest bounds the text of a manifest.
const maxManifest = 64 << 20

// manifest says what a receipt holds.
type manifest struct {
	Version int `json:"version"`

	// Merge says, for people and for programs, what was merged.
	Merge json.RawMessage `json:"merge,omitempty"`

	// Single says that the base is one file and no directory.
	Single   bool           `json:"single,omitempty"`
	Files    []fileEntry    `json:"files"`
	Tensors  []tensorEntry  `json:"tensors"`
	Literals []literalEntry `json:"literals"`
}

// fileEntry is a file of the base. Of one that the merged model kept there is the
// hash and nothing else.
type fileEntry struct {
	Name string `json:"name"`
	Size int64  `json:"size"`
	Kept string `json:"kept_sha256,omitempty"`
}

// place is a part of a file.
type place struct {
	File int   `json:"f"`
	Off  int64 `json:"o"`
	Size int64 `json:"n"`
}

// tensorEntry is a base tensor, or the codes of one, that is made of a merged one.
type tensorEntry struct {
	Name  string       `json:"name"`
	DType string       `json:"dtype"`
	Block int64        `json:"block,omitempty"`
	Shape tensor.Shape `json:"shape"`

	// Merged is the type of the merged tensor, which has the same shape or more
	// rows; Head is the hash of its first bytes.
	Merged string `json:"merged"`
	Head   string `json:"head,omitempty"`

	Places []place `json:"places"`
	SHA256 string  `json:"sha256"`

	// Same says that the bytes are those of the merged tensor.
	Same    bool          `json:"same,omitempty"`
	Factors []factorEntry `json:"factors,omitempty"`
	Blocks  []int64       `json:"blocks,omitempty"`
}

type factorEntry struct {
	Rank  int64   `json:"rank"`
	Scale float32 `json:"scale"`
	B     []int64 `json:"b"`
	A     []int64 `json:"a"`
}

// literalEntry is bytes that nothing foretells.
type literalEntry struct {
	Place  place   `json:"place"`
	SHA256 string  `json:"sha256"`
	Blocks []int64 `json:"blocks"`
}

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", tensor.ErrMalformed, fmt.Sprintf(format, args...))
}

// parseManifest reads a manifest, of which nothing is believed: what it says of sizes
// must fit together, and fill end bytes of blocks.
func parseManifest(text []byte, end int64) (*manifest, error) {
	m := new(manifest)
	d := json.NewDecoder(bytes.NewReader(text))
	if err := d.Decode(m); err != nil {
		return nil, malformed("the manifest: %v", err)
	}
	if m.Version != formatVersion {
		return nil, fmt.Errorf("%w: version %d, this program reads %d", tensor.ErrUnsupported, m.Version, formatVersion)
	}
	if err := m.checkFiles(); err != nil {
		return nil, err
	}
	l := lengths{at: int64(len(magic))}
	names := make(map[string]bool)
	for i := range m.Tensors {
		t := &m.Tensors[i]
		if names[t.Name] {
			return nil, malformed("tensor %q: the name occurs twice", t.Name)
		}
		names[t.Name] = true
		if err := t.check(&l); err != nil {
			return nil, fmt.Errorf("tensor %q: %w", t.Name, err)
		}
	}
	for _, x := range m.Literals {
		if x.Place.Size <= 0 || !isHash(x.SHA256) {
			return nil, malformed("a literal of %d bytes with the hash %q", x.Place.Size, x.SHA256)
		}
		if err := l.add(x.Blocks, chunks(x.Place.Size)); err != nil {
			return nil, err
		}
	}
	if l.at != end {
		return nil, malformed("the blocks end at byte %d, the manifest begins at %d", l.at, end)
	}
	return m, m.checkTiles()
}

func (m *manifest) checkFiles() error {
	if len(m.Files) == 0 || m.Single && len(m.Files) != 1 {
		return malformed("%d files", len(m.Files))
	}
	seen := make(map[string]bool)
	for _, f := range m.Files {
		switch {
		case f.Name == "." || !filepath.IsLocal(f.Name) || strings.ContainsAny(f.Name, "/\\\x00"):
			return malformed("%q is not the name of a file", f.Name)
		case seen[strings.ToLower(f.Name)]:
			return malformed("file %q: the name occurs twice", f.Name)
		case f.Size < 0:
			return malformed("file %q has %d bytes", f.Name, f.Size)
		case f.Kept != "" && !isHash(f.Kept):
			return malformed("file %q has the hash %q", f.Name, f.Kept)
		}
		seen[strings.ToLower(f.Name)] = true
	}
	return nil
}

func isHash(s string) bool {
	return len(s) == 64 && strings.Trim(s, "0123456789abcdef") == ""
}

// chunks returns how many blocks a literal of that many bytes has.
func chunks(size int64) int64 { return (size + chunk - 1) / chunk }

// lengths counts the blocks of a receipt.
type lengths struct{ at int64 }

// add counts blocks, of which there must be want, none of an impossible length.
func (l *lengths) add(blocks []int64, want int64) error {
	if int64(len(blocks)) != want {
		return malformed("%d blocks, want %d", len(blocks), want)
	}
	for _, n := range blocks {
		sum, ok := safeio.Add(l.at, max(0, n))
		if n < frameSize || n > maxBlock || !ok {
			return malformed("a block of %d bytes", n)
		}
		l.at = sum
	}
	return nil
}

// maxBlock bounds a block: rows are never that long.
const maxBlock = 1 << 31

func (t *tensorEntry) check(l *lengths) error {
	base, err := tensor.ParseDType(t.DType)
	if err != nil {
		return err
	}
	if t.Head != "" && !isHash(t.Head) || !isHash(t.SHA256) {
		return malformed("its hashes are none")
	}
	if err := t.Shape.Validate(); err != nil {
		return err
	}
	rows, cols := t.Shape.Rows(), t.Shape.Cols()
	var want int64
	if t.Same {
		info := tensor.Info{Name: t.Name, DType: base, Shape: t.Shape}
		if base.Opaque() || t.DType != t.Merged || len(t.Factors) > 0 {
			return malformed("%s is made of %s as it is", t.DType, t.Merged)
		}
		if err := info.Validate(); err != nil {
			return err
		}
		want = info.Size()
		if err := l.add(t.Blocks, 0); err != nil {
			return err
		}
	} else {
		c, err := coderOf(t.DType, t.Block, t.Merged)
		if err != nil {
			return err
		}
		elems := t.Shape.Elems()
		if elems > 1<<56 {
			return malformed("%d elements", elems)
		}
		want = c.size(elems)
		for _, f := range t.Factors {
			if !fits(f.Rank, rows, cols) {
				return malformed("factors of rank %d of shape %v", f.Rank, t.Shape)
			}
			if err := l.add(f.B, chunks(4*f.Rank*rows)); err != nil {
				return err
			}
			if err := l.add(f.A, chunks(4*f.Rank*cols)); err != nil {
				return err
			}
		}
		n := int64(0)
		if elems > 0 {
			per := panelRows(c, rows, cols)
			n = (rows + per - 1) / per
		}
		if err := l.add(t.Blocks, n); err != nil {
			return err
		}
	}
	for _, p := range t.Places {
		if want -= p.Size; p.Size <= 0 || want < 0 {
			return malformed("its places do not have its size")
		}
	}
	if want != 0 {
		return malformed("its places do not have its size")
	}
	return nil
}

// checkTiles checks that every byte of every file is in one tensor or literal.
func (m *manifest) checkTiles() error {
	var all []place
	for _, t := range m.Tensors {
		all = append(all, t.Places...)
	}
	for _, x := range m.Literals {
		all = append(all, x.Place)
	}
	slices.SortFunc(all, func(a, b place) int { return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Off, b.Off)) })
	at := 0
	for i, f := range m.Files {
		end := int64(0)
		for ; at < len(all) && all[at].File == i; at++ {
			if all[at].Off != end || all[at].Size > f.Size-end {
				return malformed("file %q: what it is made of does not fit at byte %d", f.Name, end)
			}
			end += all[at].Size
		}
		if f.Kept == "" && end != f.Size || f.Kept != "" && end != 0 {
			return malformed("file %q: %d of %d bytes are said", f.Name, end, f.Size)
		}
	}
	if at != len(all) {
		return malformed("something belongs to no file")
	}
	return nil
}
