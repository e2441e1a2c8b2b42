package ftype

import "github.com/seed18967229/nibble/tensor"

// place is where among its like a tensor stands that a rule is asked about.
type place struct {
	m       *Model
	imatrix bool
	i, n    int // of its like: which this is, and how many there are
}

// A rule returns the type of a tensor and why it is not the base, Invalid if it
// has nothing to say.
type rule func(p place) (tensor.DType, string)

func always(d tensor.DType) rule {
	return func(place) (tensor.DType, string) { return d, "" }
}

// first is about the first n.
func first(n int, d tensor.DType) rule {
	return func(p place) (tensor.DType, string) {
		if p.i < n {
			return d, "among the first"
		}
		return tensor.Invalid, ""
	}
}

// early is about the layers in the first part of so many.
func early(parts int, d tensor.DType) rule {
	return func(p place) (tensor.DType, string) {
		if p.i < p.n/parts {
			return d, "in an early layer"
		}
		return tensor.Invalid, ""
	}
}

// moreBits is about the first eighth, the last, and a third of those between.
func moreBits(d tensor.DType) rule {
	return func(p place) (tensor.DType, string) {
		if p.i < p.n/8 || p.i >= 7*p.n/8 || (p.i-p.n/8)%3 == 2 {
			return d, "in a layer that gets more bits"
		}
		return tensor.Invalid, ""
	}
}

// grouped is about models where four heads or more share one of attn_v.
func grouped(d tensor.DType) rule {
	return func(p place) (tensor.DType, string) {
		if p.m.group() >= 4 {
			return d, "several heads share it"
		}
		return tensor.Invalid, ""
	}
}

// withImatrix applies r with an importance matrix, or without one.
func withImatrix(with bool, r rule) rule {
	return func(p place) (tensor.DType, string) {
		if p.imatrix == with {
			return r(p)
		}
		return tensor.Invalid, ""
	}
}

// falcon applies one rule to Falcon and another to all others.
func falcon(its, others rule) rule {
	return func(p place) (tensor.DType, string) {
		r := others
		if p.m.Arch == "falcon" {
			r = its
		}
		if r == nil {
			return tensor.Invalid, ""
		}
		return r(p)
	}
}

// orElse applies b where a has nothing to say.
func orElse(a, b rule) rule {
	return func(p place) (tensor.DType, string) {
		if d, why := a(p); d != tensor.Invalid {
			return d, why
		}
		return b(p)
	}
}
