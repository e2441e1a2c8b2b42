//go:build !amd64 || purego

package kernel

func variants() []*variant { return []*variant{&plain} }

// Features returns which extensions of the instruction set that the loops use this
// machine has: plain Go uses none.
func Features() []string { return nil }
