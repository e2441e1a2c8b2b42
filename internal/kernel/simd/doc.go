// Package simd has the inner loops of package kernel in assembly. All of it is
// written by the avo program in ../_asm (make asm); none by hand. The loops take
// pointers and check nothing: package kernel chooses what the machine can run,
// checks lengths and does what is left over in Go.
//
// It knows nothing of anything else.
package simd
