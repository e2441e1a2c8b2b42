package main

import (
	"bytes"
	"fmt"
	"math"
)

// comparison is a pair that is being compared.
type comparison struct{ a, b *flat }

// span compares a part of both.
func (c comparison) span(s span, sc *scratch) (d difference, err error) {
	var stored [2][]byte
	var w [2][]float32
	for i, f := range []*flat{c.a, c.b} {
		if f.rows == nil {
			if stored[i], err = f.bytes(&sc.bytes[i], s); err != nil {
				return d, err
			}
		}
	}
	// Of encodings whose bytes do not belong to spans the values decide.
	d.bits = c.a.info.DType == c.b.info.DType && bytes.Equal(stored[0], stored[1])
	if c.a.codec == nil {
		d.blind = true
		return d, nil
	}
	for i, f := range []*flat{c.a, c.b} {
		if i == 1 && d.bits && f.rows == nil {
			w[1] = w[0]
			break
		}
		if w[i], err = f.floats(&sc.floats[i], stored[i], s); err != nil {
			return d, err
		}
	}
	d.values(w[0], w[1])
	if c.a.rows != nil && (d.maxAbs > 0 || d.nonFinite > 0) {
		d.bits = false
	}
	return d, nil
}

// difference sums up how two tensors, or parts of them, differ.
type difference struct {
	bits      bool // the same bytes
	blind     bool // nothing decodes them
	maxAbs    float64
	nonFinite int64
	aa, bb    float64 // sums of squares
	ab, dd    float64 // of products, of squared differences
}

// values compares values. Two NaN are the same, and so are two infinities of one
// sign; they have no part in the sums.
func (d *difference) values(a, b []float32) {
	for i, x := range a {
		y := b[i]
		if x-x != 0 || y-y != 0 {
			if x != y && (x == x || y == y) {
				d.nonFinite++
			}
			continue
		}
		u, v := float64(x), float64(y)
		e := u - v
		d.maxAbs = max(d.maxAbs, math.Abs(e))
		d.aa += u * u
		d.bb += v * v
		d.ab += u * v
		d.dd += e * e
	}
}

func (d *difference) add(o difference) {
	d.bits, d.blind = d.bits && o.bits, d.blind || o.blind
	d.maxAbs, d.nonFinite = max(d.maxAbs, o.maxAbs), d.nonFinite+o.nonFinite
	d.aa, d.bb, d.ab, d.dd = d.aa+o.aa, d.bb+o.bb, d.ab+o.ab, d.dd+o.dd
}

// figures say how far values are apart. NonFinite counts those where one is NaN
// or Inf and the other is something else.
type figures struct {
	MaxAbs    figure `json:"max_abs"`
	RelRMS    figure `json:"rel_rms"`
	Cosine    figure `json:"cosine"`
	NonFinite int64  `json:"non_finite"`
}

func (d *difference) figures() *figures {
	f := &figures{figure(d.maxAbs), figure(math.Sqrt(d.dd / d.aa)), figure(d.ab / math.Sqrt(d.aa*d.bb)), d.nonFinite}
	if d.nonFinite > 0 {
		f.MaxAbs = figure(math.Inf(1))
	}
	if d.dd == 0 {
		f.RelRMS, f.Cosine = 0, 1
	}
	return f
}

// row writes figures in columns.
func (f *figures) row(name, kinds, state string) string {
	cos := "-"
	if !math.IsNaN(float64(f.Cosine)) {
		cos = fmt.Sprintf("%.9f", float64(f.Cosine))
	}
	return fmt.Sprintf(diffRow, name, kinds, short(f.MaxAbs), short(f.RelRMS), cos, state)
}

const diffRow = "%-44s %-15s %10s %10s %12s  %s"
