//go:build !arm64

package kernel

func fused(a, b, c float32) float32 { return fusedGo(a, b, c) }
