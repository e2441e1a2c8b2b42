package kernel

// elementLoops are the inner loops over vectors: norms, activations, softmax,
// optimizers.
type elementLoops struct{}

var elementGo = elementLoops{}
