package records

import (
	"cmp"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/tensor"
)

// partNames are the parts of a data set and what their files are called.
var partNames = [][]string{
	{"train", "training"},
	{"valid", "validation", "val", "dev", "eval"},
	{"test", "testing"},
}

// named is what a file of a part is called: the part, the number of the file and
// how many there are, a checksum as the Hugging Face hub once added, an extension.
var named = regexp.MustCompile(`^([a-z]+)(?:-(\d{1,9})(?:-of-(\d{1,9}))?(?:-[0-9a-f]{16})?)?((?:\.[a-z0-9]+){1,2})$`)

// Find returns the files of a data set in a folder and its subfolder data, each
// part's in order: train, valid (or validation, val, dev, eval) and test, with an
// extension of a format that is read, packed or not; also in several files, as
// train-00000-of-00003.parquet. Other files count for nothing.
//
// It wraps fs.ErrNotExist if there is no training file, and returns the others then; tensor.ErrMalformed if
// several files claim to be one part, or some of its files are missing;
// tensor.ErrUnsupported if a part is there in formats that are not read only.
func Find(dir string) (train, valid, test []string, err error) {
	var found []partFile
	for _, sub := range []string{"", "data"} {
		files, err := partFiles(filepath.Join(dir, sub))
		if err != nil && (sub == "" || !os.IsNotExist(err)) {
			return nil, nil, nil, err
		}
		found = append(found, files...)
	}
	for i, to := range []*[]string{&train, &valid, &test} {
		if *to, err = choose(dir, i, found); err != nil {
			return nil, nil, nil, err
		}
	}
	if train == nil {
		return nil, valid, test, hint.Add(fmt.Errorf("%s: no train.jsonl or train.txt: %w", dir, fs.ErrNotExist),
			"name the training file train.jsonl (or .json, .csv, .tsv, .parquet, .txt), or give the file itself instead of its folder")
	}
	return train, valid, test, nil
}

// partFile is a file with the name of a part.
type partFile struct {
	path   string
	part   int
	name   string // of the part, as the file has it
	number int    // -1 if it has none
	of     int    // 0 if it does not say
	ext    string
	read   bool // its format is
}

// series are the files that belong together.
func (p partFile) series() string {
	return fmt.Sprintf("%s %s %s %d %t", filepath.Dir(p.path), p.name, p.ext, p.of, p.number < 0)
}

func partFiles(dir string) ([]partFile, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var out []partFile
	for _, e := range entries {
		m := named.FindStringSubmatch(strings.ToLower(e.Name()))
		if m == nil {
			continue
		}
		part := slices.IndexFunc(partNames, func(names []string) bool { return slices.Contains(names, m[1]) })
		path := filepath.Join(dir, e.Name())
		if info, err := os.Stat(path); part < 0 || err != nil || info.IsDir() {
			continue
		}
		_, plain := compressedAs(m[4])
		format, known := formatOf(plain)
		if format == nil && known || strings.Count(plain, ".") > 1 {
			continue
		}
		p := partFile{path: path, part: part, name: m[1], number: -1, ext: m[4], read: format != nil}
		if m[2] != "" {
			p.number, _ = strconv.Atoi(m[2])
		}
		if m[3] != "" {
			p.of, _ = strconv.Atoi(m[3])
		}
		out = append(out, p)
	}
	return out, nil
}

// choose returns the files of one part.
func choose(dir string, part int, found []partFile) ([]string, error) {
	var files []partFile
	other := ""
	for _, p := range found {
		switch {
		case p.part != part:
		case p.read:
			files = append(files, p)
		default:
			other = p.path
		}
	}
	if len(files) == 0 {
		if other != "" {
			return nil, notReadable(other)
		}
		return nil, nil
	}
	for _, p := range files {
		if p.series() != files[0].series() {
			return nil, hint.Add(fmt.Errorf("%s: %w: both %s and %s", dir, tensor.ErrMalformed, relative(dir, files[0].path), relative(dir, p.path)),
				"keep one of them, or give the file itself instead of its folder")
		}
	}
	slices.SortFunc(files, func(a, b partFile) int { return cmp.Or(a.number-b.number, cmp.Compare(a.path, b.path)) })
	var paths []string
	for i, p := range files {
		if i > 0 && p.number == files[i-1].number {
			return nil, hint.Add(fmt.Errorf("%s: %w: both %s and %s", dir, tensor.ErrMalformed, relative(dir, files[i-1].path), relative(dir, p.path)), "keep one of them")
		}
		if want := i; p.of > 0 && p.number != want {
			return nil, missing(dir, want, p.of)
		}
		paths = append(paths, p.path)
	}
	if last := files[len(files)-1]; last.of > 0 && len(files) != last.of {
		return nil, missing(dir, len(files), last.of)
	}
	return paths, nil
}

func missing(dir string, number, of int) error {
	return hint.Add(fmt.Errorf("%s: %w: file %05d of %05d is missing", dir, tensor.ErrMalformed, number, of), "download all files of the data set")
}

func relative(dir, path string) string {
	if r, err := filepath.Rel(dir, path); err == nil {
		return r
	}
	return path
}
