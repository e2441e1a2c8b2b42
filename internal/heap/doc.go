// Package heap is a priority queue for the joins of a byte-pair encoding, which
// makes and drops millions of candidates: container/heap calls an interface for
// every comparison and allocates for every element. It knows nothing of tokens.
package heap
