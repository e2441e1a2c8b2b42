package kernel

// quantLoops are the inner loops of 4-bit and 8-bit block formats.
type quantLoops struct{}

var quantGo = quantLoops{}
