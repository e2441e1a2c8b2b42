// Package pages holds what is trained, its gradients and what the optimizer keeps of
// it: in memory, or for the parameters of blocks in a file, of which one block at a time
// is in memory, or in a step of the optimizer one parameter.
//
// The file has a part for each block:
//
//	values of all parameters | gradients of all | state of each, one after another
//
// The way forward reads values, the way back reads them and writes gradients, and a
// step of the optimizer reads all and writes values and state. The next is read and the
// last written while one is worked on. Which of it is in memory changes no bit of any
// result.
package pages
