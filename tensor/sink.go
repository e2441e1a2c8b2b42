package tensor

import "io"

// A Sink stores a set of tensors whose layout is known before their bytes. The
// calls come in this order: Begin once, then Body from any number of
// goroutines, then exactly one of Finish or Abort.
type Sink interface {
	// Begin fixes the metadata and the tensors, in file order, writes the
	// header and reserves the space. It returns an error, and leaves nothing
	// behind, if the format cannot hold them.
	Begin(meta Meta, layout []Info) error

	// Body returns where to write the bytes of layout[i]: exactly Size of
	// them, each once, in any order. Of a late tensor at most MaxLate bytes,
	// the highest one written giving its length.
	Body(i int) (io.WriterAt, error)

	// Finish checks that every body is complete, makes the output durable and
	// gives it its final name. If it fails, the effect is that of Abort.
	Finish() error

	// Abort removes whatever has been written. It is a no-op after Finish.
	Abort() error
}
