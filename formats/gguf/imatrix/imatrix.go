package imatrix

import (
	"fmt"
	"math"
	"slices"
)

// Matrix is what was observed of one weight, or of one of several that lie in a
// tensor, as experts do.
type Matrix struct {
	Name   string    // of the weight, as GGUF has it
	Mats   int       // matrices in the tensor
	Sums   []float32 // Mats times columns: sums of squares
	Counts []float32 // Mats: vectors in each sum
}

// File is the content of a file.
type File struct {
	Datasets  []string
	Chunks    int // read of the datasets
	ChunkSize int // in tokens; 0 if the file does not say
	Entries   []Matrix
}

// Entry returns the entry of a weight, nil if there is none.
func (f *File) Entry(name string) *Matrix {
	i := slices.IndexFunc(f.Entries, func(m Matrix) bool { return m.Name == name })
	if i < 0 {
		return nil
	}
	return &f.Entries[i]
}

// Importance returns the mean squares of the columns of a weight, one matrix
// after another, and whether there are any. Columns of a matrix that was never
// used, as an expert that no token chose, all matter alike: they have 1. The
// matrices are 1 for a file in the old form, which does not say how many.
func (f *File) Importance(name string) (values []float32, mats int, ok bool) {
	m := f.Entry(name)
	if m == nil {
		return nil, 0, false
	}
	return m.importance(), m.Mats, true
}

func (m *Matrix) importance() []float32 {
	out := make([]float32, len(m.Sums))
	cols := len(m.Sums) / m.Mats
	for i, s := range m.Sums {
		// Counts are whole numbers, and taken as such by llama.cpp.
		if count := float32(math.Round(float64(m.Counts[i/cols]))); count > 0 {
			out[i] = s / count
		} else {
			out[i] = 1
		}
	}
	return out
}

// check returns what is wrong with an entry.
func (m *Matrix) check() error {
	switch {
	case m.Name == "":
		return fmt.Errorf("an entry without a name")
	case m.Mats < 1 || len(m.Counts) != m.Mats:
		return fmt.Errorf("entry %q: %d counts for %d matrices", m.Name, len(m.Counts), m.Mats)
	case len(m.Sums) == 0 || len(m.Sums)%m.Mats != 0:
		return fmt.Errorf("entry %q: %d sums for %d matrices", m.Name, len(m.Sums), m.Mats)
	}
	if i := slices.IndexFunc(m.Sums, notSquare); i >= 0 {
		return fmt.Errorf("entry %q: sum %d is %v, which no sum of squares can be", m.Name, i, m.Sums[i])
	}
	if i := slices.IndexFunc(m.Counts, notSquare); i >= 0 {
		return fmt.Errorf("entry %q: count %d is %v", m.Name, i, m.Counts[i])
	}
	return nil
}

// notSquare reports whether x is no finite number from 0 on.
func notSquare(x float32) bool { return !(x >= 0 && x <= math.MaxFloat32) }
