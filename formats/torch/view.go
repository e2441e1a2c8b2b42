package torch

import (
	"io"

	"github.com/seed18967229/nibble/internal/safeio"
	"github.com/seed18967229/nibble/tensor"
)

// maxDims is how many dimensions torch reduces over (dim_bitset_size in
// ATen/WrapDimUtilsMulti.h); no model comes near.
const maxDims = 64

// storage is the bytes that tensors are views of.
type storage struct {
	key   string
	dtype *dtype
	bytes int64

	// at is where it begins in the file, or in root if that is not nil.
	at   int64
	root *storage
}

// begin returns where the storage begins in the file.
func (s *storage) begin() int64 {
	if s.root != nil {
		return s.root.begin() + s.at
	}
	return s.at
}

// view is a tensor: elements of a storage.
type view struct {
	storage      *storage
	dtype        *dtype
	offset       int64 // in elements, like stride
	size, stride []int64
}

// newView returns the tensor of storage, offset, size and stride. Without a
// dtype it has the storage's. Every element is inside of the storage.
func newView(m *machine, args []any, d *dtype) (*view, error) {
	s, ok := args[0].(*storage)
	size, also := args[2].(*tuple)
	stride, and := args[3].(*tuple)
	switch {
	case !ok || !also || !and:
		return nil, malformed("a tensor of %s, size %s, stride %s", describe(args[0]), describe(args[2]), describe(args[3]))
	case len(size.items) != len(stride.items):
		return nil, malformed("a tensor of %d sizes and %d strides", len(size.items), len(stride.items))
	case len(size.items) > maxDims:
		return nil, unsupported("a tensor of %d dimensions", len(size.items))
	}
	if d == nil {
		d = s.dtype
	}
	if err := m.spend(viewCost + 16*int64(len(size.items))); err != nil {
		return nil, err
	}
	v := &view{storage: s, dtype: d, size: make([]int64, len(size.items)), stride: make([]int64, len(size.items))}
	var err error
	if v.offset, err = natural(args[1], "a tensor's offset"); err != nil {
		return nil, err
	}
	for i := range v.size {
		if v.size[i], err = natural(size.items[i], "a tensor's size"); err != nil {
			return nil, err
		}
		if v.stride[i], err = natural(stride.items[i], "a tensor's stride"); err != nil {
			return nil, err
		}
	}
	return v, v.check()
}

// check returns an error unless the view lies inside of its storage.
func (v *view) check() error {
	if err := tensor.Shape(v.size).Validate(); err != nil {
		return err
	}
	if v.elems() == 0 {
		return nil
	}
	last, ok := v.offset, true
	for i, n := range v.size {
		step, fits := safeio.Mul(n-1, v.stride[i])
		ok = ok && fits
		if ok {
			last, ok = safeio.Add(last, step)
		}
	}
	end, fits := safeio.Mul(last, v.dtype.size)
	if ok && fits {
		end, ok = safeio.Add(end, v.dtype.size)
	}
	if !ok || !fits || end > v.storage.bytes {
		return malformed("a view of size %v, stride %v and offset %d in storage %q, which has %d bytes",
			v.size, v.stride, v.offset, short(v.storage.key), v.storage.bytes)
	}
	return nil
}

func (v *view) elems() int64 { return tensor.Shape(v.size).Elems() }

// info describes the tensor as safetensors would.
func (v *view) info(name string) (tensor.Info, error) {
	if v.dtype.as == tensor.Invalid {
		return tensor.Info{}, unsupported("dtype torch.%s", v.dtype.name)
	}
	shape := append(tensor.Shape{}, v.size...)
	if v.dtype.as == tensor.F4 {
		// torch counts bytes of two numbers each.
		if len(shape) == 0 {
			return tensor.Info{}, unsupported("a scalar of torch.%s, which are two numbers", v.dtype.name)
		}
		n, ok := safeio.Mul(shape[len(shape)-1], 2)
		if !ok {
			return tensor.Info{}, malformed("shape %v", shape)
		}
		shape[len(shape)-1] = n
	}
	return tensor.Info{Name: name, DType: v.dtype.as, Shape: shape}, nil
}

// open returns the tensor's bytes in row-major order, little-endian, from the
// file r, whose storages are big-endian if swap is set.
func (v *view) open(r io.ReaderAt, swap bool) io.ReaderAt {
	n := v.elems()
	if n == 0 {
		return io.NewSectionReader(r, 0, 0)
	}
	begin := v.storage.begin() + v.offset*v.dtype.size
	dims := fold(v.size, v.stride)
	if v.dtype.swap == 1 {
		swap = false
	}
	if !swap && len(dims) == 1 && dims[0].stride == 1 {
		return io.NewSectionReader(r, begin, n*v.dtype.size)
	}
	g := &gatherer{r: r, begin: begin, elem: v.dtype.size, dims: dims, limits: defaultLimits}
	if swap {
		g.swap = v.dtype.swap
	}
	return g.plan()
}

// dim is a dimension: how many steps of how many elements.
type dim struct{ n, stride int64 }

// fold returns the fewest dimensions that describe the same elements in the
// same order, at least one. None of it is of size 0.
func fold(size, stride []int64) []dim {
	var dims []dim
	for i, n := range size {
		if n == 1 {
			continue
		}
		d := dim{n, stride[i]}
		if k := len(dims); k > 0 && dims[k-1].stride == d.stride*d.n {
			dims[k-1] = dim{dims[k-1].n * d.n, d.stride}
			continue
		}
		dims = append(dims, d)
	}
	if dims == nil {
		dims = []dim{{1, 1}}
	}
	return dims
}
