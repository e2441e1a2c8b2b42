package kernel

// fused is fusedGo: here the compiler has an instruction for it, which it takes where
// a product is added without a conversion between.
func fused(a, b, c float32) float32 { return a*b + c }
