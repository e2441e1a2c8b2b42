package stream_test

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/formats/gguf/ggml"
	"github.com/seed18967229/nibble/internal/kernel"
	"github.com/seed18967229/nibble/nf4"
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/tensor/floats"
	"github.com/seed18967229/nibble/tensor/scaled"
	"github.com/seed18967229/nibble/train/stream"
)

// weights are the encodings that a base can have, with how one is made of bytes that
// are already there: what it needs of them is put right.
type weights struct {
	name  string
	codec tensor.Codec
	info  func(rows, cols int) tensor.Info
	fix   func(data []byte, info tensor.Info)
}

func plainWeights(c tensor.Codec) weights {
	return weights{
		name: c.DType().String(), codec: c,
		info: func(rows, cols int) tensor.Info {
			return tensor.Info{Name: "w", DType: c.DType(), Shape: tensor.Shape{int64(rows), int64(cols)}}
		},
		fix: func(data []byte, info tensor.Info) {
			e, ok := c.(tensor.Encoder)
			if !ok {
				return
			}
			// Rows of numbers as weights are, again and again.
			cols := int(info.Shape.Cols())
			rng := rand.New(rand.NewPCG(1, 2))
			x := make([]float32, min(16, int(info.Shape.Rows()))*cols)
			for i := range x {
				x[i] = float32(rng.NormFloat64()) * 0.02
			}
			n := len(x) / cols * int(info.RowSize())
			e.Encode(data[:n], x)
			for n < len(data) {
				n += copy(data[n:], data[:n])
			}
		},
	}
}

func nf4Weights(double bool) weights {
	h := nf4.Header{BlockSize: 64, Double: double, Source: tensor.BF16}
	name := "NF4"
	if double {
		name, h.Offset = "NF4 double", 0.01
	}
	return weights{
		name: name, codec: nf4.Codecs()[0],
		info: func(rows, cols int) tensor.Info {
			return h.Info("w", tensor.NF4, tensor.Shape{int64(rows), int64(cols)})
		},
		fix: func(data []byte, info tensor.Info) {
			elems := info.Shape.Elems()
			head := h.Append(data[:0], elems)
			s := h.Sections(elems)
			scales := make([]float32, elems/h.BlockSize)
			for i := range scales {
				scales[i] = 0.02
			}
			if double {
				values := nf4.DynamicMap()
				kernel.EncodeF32(data[len(head):], values[:])
				at := s.Header + s.Map
				kernel.EncodeF32(data[at:at+s.Nested], scales[:s.Nested/4])
				return
			}
			at := s.Header + s.Map + s.Nested
			kernel.EncodeF32(data[at:at+s.Absmax], scales)
		},
	}
}

func scaledWeights(name string, element tensor.DType, codec int, factor float32) weights {
	header := func(rows, cols int64) scaled.Header {
		return scaled.Header{Element: element, Source: tensor.BF16, Rows: rows, BlockRows: 1, BlockCols: cols, Factor: factor}
	}
	return weights{
		name: name, codec: scaled.Codecs()[codec],
		info: func(rows, cols int) tensor.Info {
			return header(int64(rows), int64(cols)).Info("w", tensor.Shape{int64(rows), int64(cols)})
		},
		fix: func(data []byte, info tensor.Info) {
			head := header(info.Shape.Rows(), info.Shape.Cols()).Append(data[:0], info.Shape.Elems())
			scales := make([]float32, info.Shape.Rows())
			for i := range scales {
				scales[i] = 0.02
			}
			kernel.EncodeF32(data[len(head):], scales)
		},
	}
}

func allWeights() []weights {
	var list []weights
	for _, c := range floats.Codecs() {
		switch c.DType() {
		case tensor.F32, tensor.BF16, tensor.F16:
			list = append(list, plainWeights(c))
		}
	}
	list = append(list, nf4Weights(false), nf4Weights(true), scaledWeights("INT8", tensor.I8, 1, float32(1)/127), scaledWeights("FP8", tensor.F8_E4M3, 0, 1))
	for _, c := range ggml.Codecs() {
		list = append(list, plainWeights(c))
	}
	return list
}

// size is the bytes of a matrix.
func (w weights) size(rows, cols int) int64 { return w.info(rows, cols).Size() }

// open makes a matrix of data.
func (w weights) open(t testing.TB, data []byte, rows, cols int) kernel.Matrix {
	info := w.info(rows, cols)
	w.fix(data, info)
	r, err := w.codec.Open(info, tensor.Memory(data))
	require.NoError(t, err)
	return stream.MatrixOf(r, info.Shape)
}

// BenchmarkProducts has the products of generating text: few rows of x by weights that
// no cache holds. It reports the encoded bytes that are read in a second, and what share
// that is of those that all processors read when they do nothing else, measured in
// between; of both the best turn counts, which is of one matrix.
func BenchmarkProducts(b *testing.B) {
	const bytes = 768 << 20
	buf := make([]byte, bytes)
	rng := rand.NewChaCha8([32]byte{})
	for _, w := range allWeights() {
		for _, s := range [][2]int{{896, 896}, {4864, 896}, {896, 4864}, {4096, 4096}, {11008, 4096}, {151936, 896}} {
			rows, cols := s[0], s[1]
			if elems, _ := w.codec.DType().Block(); !w.codec.DType().Opaque() && int64(cols)%elems != 0 {
				continue
			}
			b.Run(fmt.Sprintf("%s/%dx%d", w.name, rows, cols), func(b *testing.B) {
				_, _ = rng.Read(buf[:1<<20])
				for n := 1 << 20; n < len(buf); {
					n += copy(buf[n:], buf[:n])
				}
				var list []kernel.Matrix
				size := int(w.size(rows, cols))
				room := (size + 63) &^ 63
				for at := 0; at+size <= len(buf); at += room {
					list = append(list, w.open(b, buf[at:at+size:at+size], rows, cols))
				}
				if len(list) == 0 {
					b.Skip("the matrix is too large")
				}
				for _, m := range []int{1, 2, 4, 8} {
					b.Run(fmt.Sprint(m), func(b *testing.B) {
						x, y := make([]float32, m*cols), make([]float32, m*rows)
						for i := range x {
							x[i] = float32(i%7) - 3
						}
						product, read := time.Hour, time.Hour
						for b.Loop() {
							for i, w := range list {
								start := time.Now()
								if err := kernel.MulT(y, x, m, w, false); err != nil {
									b.Fatal(err)
								}
								product = min(product, time.Since(start))
								// What is read is not what was read before or comes next.
								at := (i + len(list)/2) % len(list) * room
								start = time.Now()
								readAll(buf[at : at+size])
								read = min(read, time.Since(start))
							}
						}
						b.ReportMetric(float64(size)/float64(product), "GB/s")
						b.ReportMetric(float64(size)/float64(read), "read-GB/s")
						b.ReportMetric(100*float64(read)/float64(product), "%")
						b.ReportMetric(0, "ns/op")
					})
				}
			})
		}
	}
}

// readAll has all processors read b, each a part of its own.
func readAll(b []byte) {
	n := runtime.GOMAXPROCS(0)
	kernel.Parallel(n, int64(len(b)), func(i int) {
		kernel.SumWords(b[i*(len(b)/n):][:len(b)/n])
	})
}
