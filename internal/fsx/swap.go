package fsx

import "os"

// swapDir replaces a directory where the system has no exchange: the old one
// steps aside, and comes back if the new one cannot take its place.
func swapDir(temp, path string) error {
	aside := temp + ".old"
	if err := os.Rename(path, aside); err != nil {
		return err
	}
	if err := os.Rename(temp, path); err != nil {
		os.Rename(aside, path)
		return err
	}
	return os.RemoveAll(aside)
}
