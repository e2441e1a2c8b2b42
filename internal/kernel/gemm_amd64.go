//go:build amd64 && !purego

package kernel

var gemmAVX2, gemmAVX512 = gemmGo, gemmGo
