//go:build amd64 && !purego

package kernel

var elementAVX2, elementAVX512 = elementGo, elementGo
