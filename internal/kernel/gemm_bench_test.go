package kernel

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"
)

// benchShapes are M x N x K of products x·wᵀ: x is M x K, w is N x K.
var benchShapes = [][3]int{{512, 4096, 4096}, {2048, 2048, 2048}, {128, 11008, 4096}}

func flops(b *testing.B, m, n, k int) {
	b.ReportMetric(2*float64(m)*float64(n)*float64(k)*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
}

// eachThreads runs a benchmark with every variant but plain Go, on 1 and 2 threads.
func eachThreads(b *testing.B, f func(b *testing.B)) {
	for _, v := range variants() {
		if v.micro == nil {
			continue
		}
		for _, threads := range []int{1, 2} {
			b.Run(fmt.Sprintf("%s/threads=%d", v.name, threads), func(b *testing.B) {
				old := runtime.GOMAXPROCS(threads)
				defer runtime.GOMAXPROCS(old)
				with(b, v)
				f(b)
			})
		}
	}
}

// BenchmarkTilePeak is what the loop in the middle of a product reaches when it reads
// the same elements all the time: the limit of the machine for this loop.
func BenchmarkTilePeak(b *testing.B) {
	eachThreads(b, func(b *testing.B) {
		u := use.micro
		const k = 1 << 20
		threads := runtime.GOMAXPROCS(0)
		for b.Loop() {
			Parallel(threads, 1<<40, func(int) {
				var c [14 * 32]float32
				var x [32]float32
				u.sum(c[:], u.cols, c[:], u.cols, strided{x[:], 1, 0}, x[:], 0, u.rows, u.cols, k, ahead{})
			})
		}
		flops(b, u.rows*threads, u.cols, k)
	})
}

func BenchmarkGemm(b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, s := range benchShapes {
		m, n, k := s[0], s[1], s[2]
		x, w, y := normal(rng, m*k), Dense{normal(rng, n*k), n, k}, make([]float32, m*n)
		b.Run(fmt.Sprintf("%dx%dx%d", m, n, k), func(b *testing.B) {
			eachThreads(b, func(b *testing.B) {
				for b.Loop() {
					_ = MulT(y, x, m, w, false)
				}
				flops(b, m, n, k)
			})
		})
	}
}

// BenchmarkGemmRank is what training an adapter of rank 16 adds: its two products, their
// gradients with respect to the input, and those of its matrices.
func BenchmarkGemmRank(b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 3))
	const m, n, r = 512, 4096, 16
	x, u, w := normal(rng, m*n), normal(rng, m*r), normal(rng, n*r)
	down, up := Dense{w, r, n}, Dense{w, n, r}
	for _, product := range []struct {
		name string
		f    func()
	}{
		{"x·Aᵀ", func() { _ = MulT(u, x, m, down, false) }},
		{"u·Bᵀ", func() { _ = MulT(x, u, m, up, false) }},
		{"dy·B", func() { _ = Mul(u, x, m, up, false) }},
		{"du·A", func() { _ = Mul(x, u, m, down, false) }},
		{"duᵀ·x", func() { AddOuter(w, u, x, m, r, n) }},
		{"dyᵀ·u", func() { AddOuter(w, x, u, m, n, r) }},
	} {
		b.Run(product.name, func(b *testing.B) {
			eachThreads(b, func(b *testing.B) {
				for b.Loop() {
					product.f()
				}
				flops(b, m, n, r)
			})
		})
	}
}

// BenchmarkGemmSmall is products as attention makes them, by one goroutine.
func BenchmarkGemmSmall(b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 4))
	for _, s := range [][3]int{{64, 64, 128}, {64, 128, 64}, {32, 512, 64}} {
		m, n, k := s[0], s[1], s[2]
		x, w, y := normal(rng, m*k), normal(rng, k*n), make([]float32, m*n)
		b.Run(fmt.Sprintf("%dx%dx%d", m, n, k), func(b *testing.B) {
			eachThreads(b, func(b *testing.B) {
				for b.Loop() {
					gemm(y, n, strided{x, k, 1}, w, n, m, n, k)
				}
				flops(b, m, n, k)
			})
		})
	}
}
