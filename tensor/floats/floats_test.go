package floats

import (
	"compress/gzip"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"io"
	"math"
	"os"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/x448/float16"

	"github.com/seed18967229/nibble/internal/kernel"
	"github.com/seed18967229/nibble/internal/tensortest"
	"github.com/seed18967229/nibble/tensor"
)

func TestEncoders(t *testing.T) {
	for d, budget := range map[tensor.DType]float64{
		tensor.F64: 0, tensor.F32: 0, tensor.F16: 0x1p-11, tensor.BF16: 0x1p-8,
	} {
		enc, err := codecs.Encoder(d)
		require.NoError(t, err)
		t.Run(d.String(), func(t *testing.T) { tensortest.TestEncoder(t, enc, budget) })
	}
}

// decode reads all of data as one row.
func decode(t *testing.T, d tensor.DType, data []byte) []float32 {
	t.Helper()
	_, size := d.Block()
	n := int64(len(data)) / size
	rows, err := codecs.Open(tensor.Info{Name: "x", DType: d, Shape: tensor.Shape{n}}, tensor.Memory(data))
	require.NoError(t, err)
	out := make([]float32, n)
	require.NoError(t, rows.ReadRows(out, 0))
	return out
}

// allCodes is every 16-bit code in order.
func allCodes() []byte {
	var b []byte
	for c := range 1 << 16 {
		b = binary.LittleEndian.AppendUint16(b, uint16(c))
	}
	return b
}

func hash(values []float32) string {
	b := make([]byte, 4*len(values))
	kernel.EncodeF32(b, values)
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:])
}

func TestEveryHalfCode(t *testing.T) {
	got := decode(t, tensor.F16, allCodes())
	require.Equal(t, "f4fdd084f85448d28c84f20fabf4022ba938e40b7f382d2727dec6f41ac6267a", hash(got))
	for c, v := range got {
		want := float16.Frombits(uint16(c)).Float32()
		if math.IsNaN(float64(want)) {
			require.True(t, math.IsNaN(float64(v)), "%#x", c)
		} else {
			require.Equal(t, want, v, "%#x", c)
			require.Equal(t, uint16(c), kernel.F32ToF16(v), "%#x must come back", c)
		}
	}
	require.Equal(t, "9207d7eb28680a098c73dbe536d1ff7b94311dc417b9a385e0af6660683e93ca", hash(decode(t, tensor.BF16, allCodes())))
}

func TestRoundingToNearestEven(t *testing.T) {
	f, err := os.Open("testdata/f32_to_small_rne.bin.gz")
	require.NoError(t, err)
	defer f.Close()
	z, err := gzip.NewReader(f)
	require.NoError(t, err)
	golden, err := io.ReadAll(z)
	require.NoError(t, err)
	require.Len(t, golden, 8*10896)

	var src []float32
	var half, bf []byte
	for at := 0; at < len(golden); at += 8 {
		src = append(src, math.Float32frombits(binary.LittleEndian.Uint32(golden[at:])))
		half = append(half, golden[at+4:at+6]...)
		bf = append(bf, golden[at+6:at+8]...)
	}
	got := make([]byte, len(half))
	kernel.EncodeF16(got, src)
	require.Equal(t, half, got)
	kernel.EncodeBF16(got, src)
	require.Equal(t, bf, got)
	for i, x := range src {
		require.Equal(t, float16.Fromfloat32(x).Bits(), binary.LittleEndian.Uint16(half[2*i:]), "the reference agrees on %v", x)
	}

	rounded := append([]float32(nil), src...)
	kernel.RoundBF16(rounded)
	require.Equal(t, decode(t, tensor.BF16, bf), rounded)
}

func TestNaNStaysNaN(t *testing.T) {
	for _, bits := range []uint32{0x7f800001, 0x7fc00000, 0xff812345, 0x7fffffff} {
		x := math.Float32frombits(bits)
		for _, d := range []tensor.DType{tensor.F64, tensor.F32, tensor.F16, tensor.BF16} {
			enc, err := codecs.Encoder(d)
			require.NoError(t, err)
			_, size := d.Block()
			b := make([]byte, size)
			enc.Encode(b, []float32{x})
			require.True(t, math.IsNaN(float64(decode(t, d, b)[0])), "%v of %#x", d, bits)
		}
	}
}

// Integers and booleans, those that float32 has no value for among them, are
// what PyTorch makes of them.
func TestIntegers(t *testing.T) {
	text, err := os.ReadFile("testdata/ints_to_f32.json")
	require.NoError(t, err)
	var golden map[string]struct{ Bytes, Values string }
	require.NoError(t, json.Unmarshal(text, &golden))
	require.Len(t, golden, 9)
	for name, c := range golden {
		d, err := tensor.ParseDType(name)
		require.NoError(t, err)
		data, err := hex.DecodeString(c.Bytes)
		require.NoError(t, err)
		values, err := hex.DecodeString(c.Values)
		require.NoError(t, err)
		require.Equal(t, decode(t, tensor.F32, values), decode(t, d, data), "%s", name)
		_, err = codecs.Encoder(d)
		require.ErrorIs(t, err, tensor.ErrUnsupported)
	}
}

func TestFloat8(t *testing.T) {
	text, err := os.ReadFile("testdata/f8_to_f32.json")
	require.NoError(t, err)
	var golden map[string][]string
	require.NoError(t, json.Unmarshal(text, &golden))
	require.Len(t, golden, 3)
	codes := make([]byte, 256)
	for i := range codes {
		codes[i] = byte(i)
	}
	for name, want := range golden {
		d, err := tensor.ParseDType(name)
		require.NoError(t, err)
		for c, v := range decode(t, d, codes) {
			if want[c] == "nan" {
				require.True(t, math.IsNaN(float64(v)), "%s %#x", name, c)
				continue
			}
			bits, err := strconv.ParseUint(want[c], 16, 32)
			require.NoError(t, err)
			require.Equal(t, uint32(bits), math.Float32bits(v), "%s %#x", name, c)
		}
		_, err = codecs.Encoder(d)
		require.ErrorIs(t, err, tensor.ErrUnsupported)
	}
}

// Widen gives every number of a tensor of any shape as the codec of its dtype
// decodes it.
func TestWiden(t *testing.T) {
	codes := make([]byte, 240)
	for i := range codes {
		codes[i] = byte(7 * i)
	}
	for _, d := range []tensor.DType{tensor.F32, tensor.F64, tensor.BF16, tensor.F16, tensor.F8_E4M3, tensor.F8_E8M0} {
		_, size := d.Block()
		n := int64(len(codes)) / size
		for _, shape := range []tensor.Shape{{n}, {n / 15, 15}, {3, n / 15, 5}, {1, n}, {n, 0}} {
			info := tensor.Info{Name: "x", DType: d, Shape: shape}
			src := tensortest.NewSource(t, nil, tensortest.Tensor{Info: info, Data: codes[:info.Size()]})
			part, err := Widen(src, info)
			require.NoError(t, err)
			require.Equal(t, 4*shape.Elems(), part.Size)
			r, err := part.Open()
			require.NoError(t, err)
			got, err := io.ReadAll(io.NewSectionReader(r, 0, part.Size))
			require.NoError(t, err)
			want := make([]byte, 4*shape.Elems())
			kernel.EncodeF32(want, decode(t, d, codes[:info.Size()]))
			require.Equal(t, want, got, "%v of %v", d, shape)
		}
	}
	info := tensor.Info{Name: "x", DType: tensor.I32, Shape: tensor.Shape{60}}
	_, err := Widen(tensortest.NewSource(t, nil, tensortest.Tensor{Info: info, Data: codes}), info)
	require.ErrorIs(t, err, tensor.ErrUnsupported)
	require.ErrorContains(t, err, `"x"`)
}

// The short way from one type of 16 bits to the other gives what the long one does,
// for every value there is.
func TestRecode(t *testing.T) {
	all := make([]byte, 2<<16)
	for i := range 1 << 16 {
		binary.LittleEndian.PutUint16(all[2*i:], uint16(i))
	}
	short := 0
	for _, to := range []tensor.DType{tensor.F64, tensor.F32, tensor.F16, tensor.BF16} {
		enc, err := codecs.Encoder(to)
		require.NoError(t, err)
		for _, from := range []tensor.DType{tensor.F64, tensor.F32, tensor.F16, tensor.BF16, tensor.I16} {
			f := enc.(tensor.Recoder).From(from)
			if f == nil {
				continue
			}
			short++
			_, size := to.Block()
			for _, n := range []int{1 << 16, 0, 1, 3, 4, 5, 1023} {
				want, got := make([]byte, int64(n)*size), make([]byte, int64(n)*size)
				enc.Encode(want, decode(t, from, all[:2*n]))
				f(got, all[:2*n])
				require.Equal(t, want, got, "%v to %v", from, to)
			}
		}
	}
	require.Equal(t, 2, short)
	// The table of machines without vector instructions gives the same.
	for d, f := range map[[2]tensor.DType]func(dst, src []byte){
		{tensor.BF16, tensor.F16}: tabled(kernel.DecodeBF16, kernel.EncodeF16),
		{tensor.F16, tensor.BF16}: tabled(kernel.DecodeF16, kernel.EncodeBF16),
	} {
		want, got := make([]byte, 2<<16), make([]byte, 2<<16)
		f(want, all)
		recoders[d](got, all)
		require.Equal(t, want, got, "%v", d)
	}
}

func BenchmarkRecode(b *testing.B) {
	src, dst := make([]byte, 1<<20), make([]byte, 1<<20)
	for i := range src {
		src[i] = byte(i * 7)
	}
	f := recoders[[2]tensor.DType{tensor.BF16, tensor.F16}]
	b.SetBytes(1 << 20)
	for b.Loop() {
		f(dst, src)
	}
}
