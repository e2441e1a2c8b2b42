package heap

// Ordered is what a Queue can hold.
type Ordered[T any] interface {
	// Before reports whether an element leaves the queue before another.
	Before(T) bool
}

// Queue is a binary heap, the first element on top. The empty Queue is ready to
// use.
type Queue[T Ordered[T]] []T

// Push adds an element.
func (q *Queue[T]) Push(c T) {
	*q = append(*q, c)
	h := *q
	i := len(h) - 1
	for i > 0 {
		up := (i - 1) / 2
		if !c.Before(h[up]) {
			break
		}
		h[i] = h[up]
		i = up
	}
	h[i] = c
}

// Pop removes the first element. The queue must not be empty.
func (q *Queue[T]) Pop() T {
	h := *q
	top, c := h[0], h[len(h)-1]
	h = h[:len(h)-1]
	*q = h
	i := 0
	for 2*i+1 < len(h) {
		down := 2*i + 1
		if down+1 < len(h) && h[down+1].Before(h[down]) {
			down++
		}
		if !h[down].Before(c) {
			break
		}
		h[i] = h[down]
		i = down
	}
	if len(h) > 0 {
		h[i] = c
	}
	return top
}
