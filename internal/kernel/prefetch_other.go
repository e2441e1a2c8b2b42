//go:build !amd64 || purego

package kernel

// Prefetch asks for what is read soon where there is an instruction for that.
func Prefetch(b []byte, at, stride, rows, n int) {}
