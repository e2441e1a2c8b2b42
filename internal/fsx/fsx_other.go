//go:build !linux

package fsx

import "os"

func rename(temp, path string, force bool) error {
	if err := exists(path, force); err != nil {
		return err
	}
	return os.Rename(temp, path)
}

func replaceDir(temp, path string) error {
	if err := os.Rename(temp, path); err == nil {
		return nil
	}
	return swapDir(temp, path)
}

func allocate(*os.File, int64) error { return nil }

func checkFree(string, int64) error { return nil }

// Free returns 0: the system is not asked here.
func Free(string) int64 { return 0 }

func umask() os.FileMode { return 0o022 }

func move(*os.File, int64, *os.File, int64, int64) (int64, error) { return 0, ErrCannotMove }
