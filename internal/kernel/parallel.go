package kernel

import (
	"math/bits"
	"runtime"
	"sync"
	"sync/atomic"
)

// serialWork is the number of multiply-adds below which starting goroutines
// costs more than it brings.
const serialWork = 1 << 16

// Parallel calls f(0) to f(n-1), sharing the calls among as many goroutines as
// Go may use processors. work is the number of multiply-adds of all calls
// together; little work is done in the caller. f(i) must not depend on which
// calls came before.
func Parallel(n int, work int64, f func(i int)) {
	workers := min(runtime.GOMAXPROCS(0), n)
	if workers <= 1 || work < serialWork {
		for i := range n {
			f(i)
		}
		return
	}
	var next atomic.Int64
	run := func() {
		for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
			f(i)
		}
	}
	var wg sync.WaitGroup
	for range workers - 1 {
		wg.Go(run)
	}
	run()
	wg.Wait()
}

// floats are pools of scratch slices by the power of two that they hold, so that a
// training step does not churn the heap.
var floats [bits.UintSize + 1]sync.Pool // *[]float32

// leastScratch is the power of two of floats in the smallest scratch slice.
const leastScratch = 8

// scratch returns a slice of n floats with arbitrary content, to be given back
// by release. It begins with a cache line, which loads of whole ones need to be fast.
func scratch(n int) *[]float32 {
	class := scratchClass(n)
	p, _ := floats[class].Get().(*[]float32)
	if p == nil {
		s := make([]float32, 1<<class)
		p = &s
	}
	*p = (*p)[:n]
	return p
}

func release(p *[]float32) { floats[scratchClass(cap(*p))].Put(p) }

func scratchClass(n int) int { return max(leastScratch, bits.Len(uint(max(1, n)-1))) }

// scratchBytes is the memory that scratch takes for n floats.
func scratchBytes(n int) int64 { return 4 << scratchClass(n) }
