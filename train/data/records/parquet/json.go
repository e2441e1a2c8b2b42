package parquet

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"math"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/seed18967229/nibble/tensor"
	"github.com/x448/float16"
)

// json writes a value as its type says.
func (n *node) json(b []byte, d datum) ([]byte, error) {
	switch {
	case n.kind == text && n.physical == typeBytes:
		return quote(b, d.bytes)
	case n.kind == decimal:
		return n.decimal(b, d)
	case n.kind == uuid && len(d.bytes) == 16:
		h := hex.EncodeToString(d.bytes)
		return quote(b, []byte(strings.Join([]string{h[:8], h[8:12], h[12:16], h[16:20], h[20:]}, "-")))
	case n.kind == half && len(d.bytes) == 2:
		return number(b, float64(float16.Frombits(uint16(little(d.bytes))).Float32()), 32), nil
	}
	switch n.physical {
	case typeBool:
		return strconv.AppendBool(b, d.bits != 0), nil
	case typeInt32, typeInt64:
		return n.integer(b, d.bits)
	case typeInt96: // nanoseconds of a day, and the Julian day
		day := int64(little(d.bytes[8:])) - 2440588
		return quote(b, []byte(stamp(time.Unix(day*86400, int64(little(d.bytes[:8]))))))
	case typeFloat:
		return number(b, float64(math.Float32frombits(uint32(d.bits))), 32), nil
	case typeDouble:
		return number(b, math.Float64frombits(d.bits), 64), nil
	}
	if n.kind == plain && n.physical == typeBytes && utf8.Valid(d.bytes) && !slices.Contains(d.bytes, 0) {
		return quote(b, d.bytes)
	}
	b = append(b, '"')
	b = base64.StdEncoding.AppendEncode(b, d.bytes)
	return append(b, '"'), nil
}

// integer writes a whole number, or the date or time it stands for.
func (n *node) integer(b []byte, bits uint64) ([]byte, error) {
	v := int64(bits)
	if n.physical == typeInt32 {
		v, bits = int64(int32(bits)), uint64(uint32(bits))
	}
	parts := int64(math.Pow10(int(max(0, n.unit)))) // in a second
	switch n.kind {
	case unsigned:
		return strconv.AppendUint(b, bits, 10), nil
	case date:
		return quote(b, []byte(time.Unix(v*86400, 0).UTC().Format(time.DateOnly)))
	case timestamp, clock:
		if n.unit < 3 || n.unit > 9 {
			return nil, fmt.Errorf("%w: times of an unknown unit", tensor.ErrMalformed)
		}
		at := time.Unix(v/parts, v%parts*(1e9/parts))
		if n.kind == clock {
			return quote(b, []byte(at.UTC().Format("15:04:05.999999999")))
		}
		return quote(b, []byte(stamp(at)))
	}
	return strconv.AppendInt(b, v, 10), nil
}

// stamp writes a point in time.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.999999999") }

// decimal writes a number as it is, without rounding.
func (n *node) decimal(b []byte, d datum) ([]byte, error) {
	const most = 1000
	v := new(big.Int)
	switch n.physical {
	case typeInt32:
		v.SetInt64(int64(int32(d.bits)))
	case typeInt64:
		v.SetInt64(int64(d.bits))
	case typeBytes, typeFixed:
		if len(d.bytes) > most {
			return nil, fmt.Errorf("%w: a decimal of %d bytes", tensor.ErrMalformed, len(d.bytes))
		}
		v.SetBytes(d.bytes)
		if len(d.bytes) > 0 && d.bytes[0] > 127 {
			v.Sub(v, new(big.Int).Lsh(big.NewInt(1), uint(8*len(d.bytes))))
		}
	default:
		return nil, fmt.Errorf("%w: a decimal of the physical type %d", tensor.ErrMalformed, n.physical)
	}
	if n.scale < 0 || n.scale > most {
		return nil, fmt.Errorf("%w: a decimal of scale %d", tensor.ErrMalformed, n.scale)
	}
	if v.Sign() < 0 {
		b = append(b, '-')
	}
	digits := v.Abs(v).String()
	if short := int(n.scale) + 1 - len(digits); short > 0 {
		digits = strings.Repeat("0", short) + digits
	}
	whole := len(digits) - int(n.scale)
	b = append(b, digits[:whole]...)
	if n.scale > 0 {
		b = append(append(b, '.'), digits[whole:]...)
	}
	return b, nil
}

// number writes a float, which JSON has no infinities and NaN of.
func number(b []byte, v float64, size int) []byte {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return append(b, "null"...)
	}
	return strconv.AppendFloat(b, v, 'g', -1, size)
}

func quote(b, s []byte) ([]byte, error) {
	b, err := jsontext.AppendQuote(b, s)
	if err != nil {
		return nil, fmt.Errorf("%w: text that is not UTF-8", tensor.ErrMalformed)
	}
	return b, nil
}
