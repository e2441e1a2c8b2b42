//go:build amd64 && !purego

package kernel

var quantAVX2, quantAVX512 = quantGo, quantGo
