package main

import (
	"fmt"
	"runtime"
	"slices"
	"strings"

	"github.com/seed18967229/nibble/internal/kernel"
	"github.com/seed18967229/nibble/internal/memory"
	"github.com/seed18967229/nibble/internal/speed"
	"github.com/seed18967229/nibble/nf4"
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/train/stream"
)

// benchmarks are what bench measures.
type benchmarks struct {
	threads  []int // 1, and all
	variants []string

	// from is read and to written by whatever works in memory, and both are where
	// operands lie: from holds numbers of about 0.01.
	from, to speed.Buffer

	list    []benchmark
	leftOut []string
}

// benchmark is a case and what its rates will be called.
type benchmark struct {
	speed.Case
	rate benchRate

	// of lists what the rate is a share of: the fastest of them.
	of []benchKey

	// beside is 1 + the index of the case that this one's time is divided by, for
	// one more line; 0 if there is none.
	beside int
}

type benchKey struct {
	section, name, variant string
	threads                int
}

// bufferBytes is the size of each buffer where there is memory for it: more than the
// largest caches have.
const bufferBytes = 512 << 20

// newBenchmarks prepares buffers that take no more than limit, if there is one, nor
// than a quarter of the memory that is free.
func newBenchmarks(threads int, variants []string, limit int64) *benchmarks {
	b := &benchmarks{threads: []int{1}, variants: variants}
	if threads > 1 {
		b.threads = append(b.threads, threads)
	}
	size := int64(bufferBytes)
	if free := speed.FreeMemory(); free > 0 {
		size = min(size, free/8)
	}
	if limit > 0 {
		size = min(size, limit/2)
	}
	size = max(size, 1<<20) &^ 4095
	b.from, b.to = speed.NewBuffer(size, 1), speed.NewBuffer(size, 0)
	return b
}

// add adds the cases of a section.
func (b *benchmarks) add(section string) error {
	switch section {
	case "fma":
		b.addMultiplyAdds()
	case "memory":
		b.addMemory()
	case "gemm":
		b.addProducts()
	case "nf4":
		return b.addNF4()
	case "convert":
		b.addConversions()
	case "attention":
		b.addAttention()
	}
	return nil
}

// each adds a case for one processor and one for all. f makes it for a number of
// threads; Threads and the names are filled in.
func (b *benchmarks) each(rate benchRate, f func(threads int) benchmark) {
	for _, n := range b.threads {
		x := f(n)
		x.rate = rate
		x.rate.Threads, x.Threads = n, n
		x.Variant = rate.Variant
		b.list = append(b.list, x)
	}
}

func (b *benchmarks) addMultiplyAdds() {
	for _, v := range b.variants {
		b.each(benchRate{Section: "fma", Name: "multiply-add", Variant: v, Unit: "GFLOP/s"}, func(threads int) benchmark {
			return benchmark{Case: speed.MultiplyAdds(v, threads)}
		})
	}
}

// share adds a case whose n pieces are shared among threads; a piece has size bytes
// read and written.
func (b *benchmarks) share(rate benchRate, n, step int, size float64, of []string, f func(from, to int) error) {
	b.each(rate, func(threads int) benchmark {
		x := benchmark{Case: speed.Case{Work: float64(n) * size, Run: func() error { return speed.Share(n, step, f) }}}
		for _, name := range of {
			x.of = append(x.of, benchKey{"memory", name, "", threads})
		}
		return x
	})
}

func (b *benchmarks) addMemory() {
	n := len(b.from.Bytes)
	from, to := b.from.Bytes, b.to.Bytes
	rate := benchRate{Section: "memory", Unit: "GB/s"}
	rate.Name = "read"
	b.share(rate, n, 4096, 1, nil, func(i, j int) error { kernel.SumWords(from[i:j]); return nil })
	rate.Name = "write"
	b.share(rate, n, 4096, 1, nil, func(i, j int) error { clear(to[i:j]); return nil })
	rate.Name = "copy"
	b.share(rate, n, 4096, 2, nil, func(i, j int) error { copy(to[i:j], from[i:j]); return nil })
	rate.Name = "copy past the caches"
	b.share(rate, n, 4096, 2, nil, func(i, j int) error { kernel.StreamCopy(to[i:j], from[i:j]); return nil })
}

// copies are the rows of the section on memory that what reads and writes is a share
// of.
var copies = []string{"copy", "copy past the caches"}

// peakOf is what a product is a share of.
func peakOf(variant string, threads int) []benchKey {
	return []benchKey{{"fma", "multiply-add", variant, threads}}
}

// operands returns the weight and the input of y = x Wᵀ, and room for y; false if the
// buffers are too small for them, which is then noted.
func (b *benchmarks) operands(section string, m, n, k int) (w, x, y []float32, ok bool) {
	if need := n*k + m*k; need > len(b.from.Floats) || m*n > len(b.to.Floats) {
		b.leftOut = append(b.leftOut, fmt.Sprintf("%s %d x %d x %d: two buffers of %s are too small", section, m, n, k, memory.FormatSize(int64(len(b.from.Bytes)))))
		return nil, nil, nil, false
	}
	return b.from.Floats[:n*k], b.from.Floats[n*k:][:m*k], b.to.Floats[:m*n], true
}

func (b *benchmarks) addProducts() {
	for i, s := range [][3]int{{512, 4096, 4096}, {2048, 2048, 2048}, {128, 11008, 4096}} {
		m, n, k := s[0], s[1], s[2]
		w, x, y, ok := b.operands("gemm", m, n, k)
		if !ok {
			continue
		}
		for _, v := range b.variants {
			slow := v == "go" && len(b.variants) > 1 // it would take as long as all the rest
			if slow && i > 0 {
				continue
			}
			rate := benchRate{Section: "gemm", Name: fmt.Sprintf("%d x %d x %d", m, n, k), Variant: v, Unit: "GFLOP/s"}
			b.each(rate, func(threads int) benchmark {
				c := speed.Case{Work: 2 * float64(m) * float64(n) * float64(k), Run: func() error {
					return kernel.MulT(y, x, m, kernel.Dense{Data: w, Rows: n, Cols: k}, false)
				}}
				if slow {
					c.Most = 1
				}
				return benchmark{Case: c, of: peakOf(v, threads)}
			})
		}
	}
}

// packedSize returns how many bytes an NF4 tensor has.
func packedSize(rows, cols int) int64 { return packedInfo(rows, cols).Size() }

func packedInfo(rows, cols int) tensor.Info {
	return packedHeader.Info("w", tensor.NF4, tensor.Shape{int64(rows), int64(cols)})
}

var packedHeader = nf4.Header{BlockSize: 64, Double: true, Source: tensor.BF16, Offset: 0.01}

// packed makes an NF4 tensor of what buf holds: its codes and scales are what is there.
func packed(buf []byte, rows, cols int) (kernel.Matrix, error) {
	info := packedInfo(rows, cols)
	data := buf[:info.Size()]
	head := packedHeader.Append(data[:0], int64(rows)*int64(cols))
	scales := nf4.DynamicMap()
	kernel.EncodeF32(data[len(head):], scales[:])
	r, err := codecs.Open(info, tensor.Memory(data))
	return stream.MatrixOf(r, info.Shape), err
}

func (b *benchmarks) addNF4() error {
	if err := b.addNF4Products(); err != nil {
		return err
	}
	if err := b.addNF4Vector(); err != nil {
		return err
	}
	return b.addNF4Coding()
}

// addNF4Products has products over NF4 beside the same over float32.
func (b *benchmarks) addNF4Products() error {
	const n, k = 4096, 4096
	variant, _ := kernel.Variant()
	for _, m := range []int{128, 512} {
		w, x, y, ok := b.operands("nf4", m, n, k)
		if !ok {
			continue
		}
		p, err := packed(append([]byte(nil), b.from.Bytes[:packedSize(n, k)]...), n, k)
		if err != nil {
			return err
		}
		product := func(w kernel.Matrix) func(threads int) benchmark {
			return func(threads int) benchmark {
				return benchmark{Case: speed.Case{Work: 2 * float64(m) * n * k, Run: func() error { return kernel.MulT(y, x, m, w, false) }}, of: peakOf(variant, threads)}
			}
		}
		name := fmt.Sprintf("%d x %d x %d", m, n, k)
		first := len(b.list)
		b.each(benchRate{Section: "nf4", Name: name + " float32", Unit: "GFLOP/s"}, product(kernel.Dense{Data: w, Rows: n, Cols: k}))
		b.each(benchRate{Section: "nf4", Name: name + " NF4", Unit: "GFLOP/s"}, product(p))
		for i := range b.threads {
			b.list[first+len(b.threads)+i].beside = 1 + first + i
		}
	}
	return nil
}

// addNF4Vector has the product of generating text, one row, over more weights than
// caches hold.
func (b *benchmarks) addNF4Vector() error {
	const k = 4096
	n := int(float64(len(b.from.Bytes)-4096)/0.53) / k
	for n > 0 && packedSize(n, k) > int64(len(b.from.Bytes)) {
		n--
	}
	if n < 1 {
		return nil
	}
	p, err := packed(b.from.Bytes, n, k)
	if err != nil {
		return err
	}
	x, y := b.from.Floats[len(b.from.Floats)-k:], b.to.Floats[:n]
	b.each(benchRate{Section: "nf4", Name: "one row, bytes of NF4", Unit: "GB/s"}, func(threads int) benchmark {
		return benchmark{
			Case: speed.Case{Work: float64(packedSize(n, k)), Run: func() error { return kernel.MulT(y, x, 1, p, false) }},
			of:   []benchKey{{"memory", "read", "", threads}},
		}
	})
	return nil
}

// addNF4Coding encodes and decodes, in the second-level cache and in memory.
func (b *benchmarks) addNF4Coding() error {
	const inCache, cols, often = 1 << 16, 1 << 10, 16
	encode := func(codes []byte, x []float32) error {
		e, err := nf4.NewEncoder(tensor.NF4, 64, int64(len(x)))
		if err == nil {
			_, err = e.Append(codes[:0], x)
		}
		return err
	}
	cached := func(name string, f func(thread int) error) {
		b.each(benchRate{Section: "nf4", Name: name, Unit: "Gweights/s"}, func(threads int) benchmark {
			return benchmark{Case: speed.Case{Work: float64(threads) * often * inCache, Run: func() error {
				return speed.Share(threads, 1, func(from, to int) error {
					for i := from; i < to; i++ {
						for range often {
							if err := f(i); err != nil {
								return err
							}
						}
					}
					return nil
				})
			}}}
		})
	}
	most := runtime.GOMAXPROCS(0)
	floats, codes, small := make([][]float32, most), make([][]byte, most), make([]kernel.Matrix, most)
	for i := range most {
		floats[i] = append([]float32(nil), b.from.Floats[2048:][:inCache]...)
		codes[i] = make([]byte, inCache/2)
		var err error
		if small[i], err = packed(append([]byte(nil), b.from.Bytes[:packedSize(inCache/cols, cols)]...), inCache/cols, cols); err != nil {
			return err
		}
	}
	cached("encode, in cache", func(i int) error { return encode(codes[i], floats[i]) })
	cached("decode, in cache", func(i int) error { return small[i].DecodeRows(floats[i], 0) })

	n := len(b.from.Floats) / inCache * inCache
	b.share(benchRate{Section: "nf4", Name: "encode, in memory", Unit: "GB/s"}, n, inCache, float64(packedSize(n/cols, cols))/float64(n)+4, []string{"read"},
		func(i, j int) error { return encode(b.to.Bytes[i/2:i/2:j/2], b.from.Floats[i:j]) })
	// The last bytes of the buffer are decoded: the first may be another tensor.
	size := packedSize(n/cols, cols)
	p, err := packed(b.from.Bytes[int64(len(b.from.Bytes))-size:], n/cols, cols)
	if err != nil {
		return err
	}
	b.share(benchRate{Section: "nf4", Name: "decode, in memory", Unit: "GB/s"}, n, inCache, float64(size)/float64(n)+4, []string{"write"},
		func(i, j int) error {
			for ; i < j; i += inCache {
				if err := p.DecodeRows(b.to.Floats[i:min(j, i+inCache)], i/cols); err != nil {
					return err
				}
			}
			return nil
		})
	return nil
}

func (b *benchmarks) addConversions() {
	n := len(b.from.Floats)
	from, to := b.from, b.to
	for _, c := range []struct {
		name string
		f    func(i, j int)
	}{
		{"bf16 to float32", func(i, j int) { kernel.DecodeBF16(to.Floats[i:j], from.Bytes[2*i:2*j]) }},
		{"float32 to bf16", func(i, j int) { kernel.EncodeBF16(to.Bytes[2*i:2*j], from.Floats[i:j]) }},
		{"f16 to float32", func(i, j int) { kernel.DecodeF16(to.Floats[i:j], from.Bytes[2*i:2*j]) }},
		{"float32 to f16", func(i, j int) { kernel.EncodeF16(to.Bytes[2*i:2*j], from.Floats[i:j]) }},
	} {
		b.share(benchRate{Section: "convert", Name: c.name, Unit: "GB/s"}, n, 1024, 6, copies, func(i, j int) error { c.f(i, j); return nil })
	}
}

func (b *benchmarks) addAttention() {
	const t, d = 2048, 128
	a := kernel.Attention{Heads: 4, KVHeads: 4, HeadDim: d}
	size := t * a.Heads * d
	if 4*size > len(b.from.Floats) || 4*size > len(b.to.Floats) {
		b.leftOut = append(b.leftOut, fmt.Sprintf("attention: two buffers of %s are too small", memory.FormatSize(int64(len(b.from.Bytes)))))
		return
	}
	part := func(x []float32, i int) []float32 { return x[i*size : (i+1)*size] }
	q, k, v, do := part(b.from.Floats, 0), part(b.from.Floats, 1), part(b.from.Floats, 2), part(b.from.Floats, 3)
	o, dq, dk, dv := part(b.to.Floats, 0), part(b.to.Floats, 1), part(b.to.Floats, 2), part(b.to.Floats, 3)
	lse := make([]float32, t*a.Heads)
	variant, _ := kernel.Variant()
	// Forward is two products of t x d by half of t x t, backward five.
	work := float64(a.Heads) * 7 * 2 * t * t / 2 * d
	b.each(benchRate{Section: "attention", Name: fmt.Sprintf("%d tokens, %d heads of %d", t, a.Heads, d), Unit: "GFLOP/s"}, func(threads int) benchmark {
		return benchmark{Case: speed.Case{Work: work, Run: func() error {
			a.Forward(o, lse, q, k, v, t, t)
			a.Grad(dq, dk, dv, do, o, lse, q, k, v, t)
			return nil
		}}, of: peakOf(variant, threads)}
	})
}

// cases are what is to be timed.
func (b *benchmarks) cases() []speed.Case {
	var list []speed.Case
	for _, x := range b.list {
		list = append(list, x.Case)
	}
	return list
}

// rates makes the result of what was timed.
func (b *benchmarks) rates(measured []speed.Rates) []benchRate {
	known := make(map[benchKey]speed.Rates)
	for i, x := range b.list {
		known[benchKey{x.rate.Section, x.rate.Name, x.rate.Variant, x.rate.Threads}] = measured[i]
	}
	var out, ratios []benchRate
	for i, x := range b.list {
		r := rateOf(x.rate, measured[i])
		var top speed.Rates
		for _, k := range x.of {
			if m := known[k]; m.Median() > top.Median() {
				top, r.ShareOf = m, k.name
			}
		}
		r.Share = measured[i].Over(top).Median()
		out = append(out, r)
		if x.beside > 0 {
			ratios = append(ratios, ratio(x.rate, measured[x.beside-1].Over(measured[i])))
		}
		// The ratios of one thing on all numbers of processors go below it.
		if r.Threads == b.threads[len(b.threads)-1] {
			out, ratios = append(out, ratios...), nil
		}
	}
	return out
}

// ratio makes a line of what was divided; the best time is the smallest.
func ratio(r benchRate, times speed.Rates) benchRate {
	r.Name, r.Unit = strings.TrimSuffix(r.Name, "NF4")+"ratio", "times"
	r.Median, r.Best, r.Rounds = times.Median(), slices.Min(times), len(times)
	return r
}
