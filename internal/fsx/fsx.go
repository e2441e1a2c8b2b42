package fsx

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/seed18967229/nibble/internal/hint"
)

// ErrExists is returned when an output is there already and may not be
// replaced.
var ErrExists = errors.New("output exists")

// exists returns an error wrapping ErrExists if path is there and force is not
// set.
func exists(path string, force bool) error {
	if _, err := os.Lstat(path); err == nil && !force {
		return hint.Add(fmt.Errorf("%s: %w", path, ErrExists), "choose another output, or give --force to replace it")
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// tempName is the pattern of temporary names for path, in the same directory:
// hidden, and saying whose they are.
func tempName(path string) string { return "." + filepath.Base(path) + ".nibble-*" }

// A File becomes path when it is committed.
type File struct {
	*os.File
	path  string
	force bool
	done  bool
}

// Create starts writing path. Unless force is set, path must not exist.
func Create(path string, force bool) (*File, error) {
	if err := exists(path, force); err != nil {
		return nil, err
	}
	if st, err := os.Stat(path); err == nil && st.IsDir() {
		return nil, fmt.Errorf("%s: is a directory, not a file to be replaced", path)
	}
	f, err := os.CreateTemp(filepath.Dir(path), tempName(path))
	if err != nil {
		return nil, unwritable(path, err)
	}
	// CreateTemp makes files private; a model is to be as readable as any
	// other file the user makes.
	if err := f.Chmod(0o666 &^ umask()); err != nil {
		f.Close()
		os.Remove(f.Name())
		return nil, err
	}
	return &File{File: f, path: path, force: force}, nil
}

// Reserve makes the file size bytes long, with the space for them set aside
// where the file system can do that, so that a full disk shows now and not in
// the middle.
func (f *File) Reserve(size int64) error {
	if err := Reserve(f.File, size); err != nil {
		return fmt.Errorf("%s: %w", f.path, err)
	}
	return nil
}

// Reserve does that for a file of any kind.
func Reserve(f *os.File, size int64) error {
	if err := checkFree(f.Name(), size); err != nil {
		return err
	}
	if err := allocate(f, size); err != nil {
		return fmt.Errorf("reserving %d bytes: %w", size, err)
	}
	return f.Truncate(size)
}

// Commit syncs the file and gives it its name. If that fails, nothing is left
// behind.
func (f *File) Commit() error {
	if f.done {
		return nil
	}
	err := f.Sync()
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = rename(f.Name(), f.path, f.force)
	}
	f.done = true
	if err != nil {
		os.Remove(f.Name())
		return fmt.Errorf("%s: %w", f.path, err)
	}
	return SyncDir(filepath.Dir(f.path))
}

// Abort removes what was written. After Commit it does nothing.
func (f *File) Abort() error {
	if f.done {
		return nil
	}
	f.done = true
	f.Close()
	return os.Remove(f.Name())
}

// WriteFile writes a small file whole, as Create and Commit do.
func WriteFile(path string, data []byte, force bool) error {
	f, err := Create(path, force)
	if err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		f.Abort()
		return fmt.Errorf("%s: %w", path, err)
	}
	return f.Commit()
}

// A Dir becomes path when it is committed. Until then its content is under
// Temp, in the same parent directory.
type Dir struct {
	path, temp string
	force      bool
	done       bool
}

// CreateDir starts writing the directory path. Unless force is set, path must
// not exist, or be an empty directory. With force, an existing directory is replaced
// whole, but only if ours says that it is such a directory as may be: a slip of
// the keyboard must not cost a home directory.
func CreateDir(path string, force bool, ours func(names []string) bool) (*Dir, error) {
	path = filepath.Clean(path)
	old, err := os.ReadDir(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		if serr := exists(path, force); serr != nil {
			return nil, serr
		}
		return nil, fmt.Errorf("%s: is a file, not a directory to be replaced", path)
	case len(old) > 0 && !force:
		return nil, exists(path, false)
	case len(old) > 0:
		names := make([]string, len(old))
		for i, e := range old {
			names[i] = e.Name()
		}
		if !ours(names) {
			return nil, hint.Add(fmt.Errorf("%s: %w and does not look like one of nibble's, so --force does not replace it", path, ErrExists),
				"choose another output, or remove the directory yourself")
		}
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		return nil, unwritable(path, err)
	}
	temp, err := os.MkdirTemp(filepath.Dir(path), tempName(path))
	if err != nil {
		return nil, unwritable(path, err)
	}
	if err := os.Chmod(temp, 0o777&^umask()); err != nil {
		os.Remove(temp)
		return nil, err
	}
	return &Dir{path: path, temp: temp, force: force}, nil
}

// Temp returns where the files of the directory are to be made.
func (d *Dir) Temp() string { return d.temp }

// Path returns the name the directory will have.
func (d *Dir) Path() string { return d.path }

// WriteFile writes and syncs one small file of the directory.
func (d *Dir) WriteFile(name string, data []byte) error {
	return WriteFile(filepath.Join(d.temp, name), data, false)
}

// Commit gives the directory its name, in exchange for what it replaces. The
// files in it must have been synced. If it fails, nothing is left behind.
func (d *Dir) Commit() error {
	if d.done {
		return nil
	}
	err := SyncDir(d.temp)
	if err == nil {
		err = replaceDir(d.temp, d.path)
	}
	if err != nil {
		d.Abort()
		return fmt.Errorf("%s: %w", d.path, err)
	}
	d.done = true
	return SyncDir(filepath.Dir(d.path))
}

// Abort removes what was written. After Commit it does nothing.
func (d *Dir) Abort() error {
	if d.done {
		return nil
	}
	d.done = true
	return os.RemoveAll(d.temp)
}

// Same reports whether both paths lead to one existing file or directory.
func Same(a, b string) bool {
	sa, err := os.Stat(a)
	if err != nil {
		return false
	}
	sb, err := os.Stat(b)
	return err == nil && os.SameFile(sa, sb)
}

// CheckOutput returns an error if out is one of the inputs, or lies inside an
// input directory whose replacement would take it along.
func CheckOutput(out string, inputs ...string) error {
	for _, in := range inputs {
		if in != "" && Same(in, out) {
			return hint.Add(fmt.Errorf("%s: the output is the input", out), "choose another output; nibble never writes over what it reads")
		}
	}
	return nil
}

func unwritable(path string, err error) error {
	return hint.Add(fmt.Errorf("%s: cannot be written: %w", path, underlying(err)), "choose an output in a directory that exists and that you may write to")
}

// underlying drops the temporary name, which means nothing to the user.
func underlying(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

// SyncDir makes the names in a directory last.
func SyncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	// Some file systems cannot sync a directory; the rename stands all the
	// same.
	_ = d.Sync()
	return nil
}

// Existing returns path, or the nearest directory above it that exists.
func Existing(path string) string {
	for {
		if _, err := os.Stat(path); err == nil {
			return path
		}
		up := filepath.Dir(path)
		if up == path {
			return path
		}
		path = up
	}
}
