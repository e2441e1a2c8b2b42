//go:build amd64 && !purego

package kernel

import "golang.org/x/sys/cpu"

// variants returns what the machine can run, the best first.
func variants() []*variant {
	list := []*variant{&plain}
	x := &cpu.X86
	if !(x.HasAVX2 && x.HasFMA && x.HasF16C) {
		return list
	}
	list = append([]*variant{&avx2}, list...)
	if x.HasAVX512F && x.HasAVX512BW && x.HasAVX512DQ && x.HasAVX512VL {
		list = append([]*variant{&avx512}, list...)
	}
	return list
}

var (
	avx2   = variant{"avx2", convertAVX2, quantAVX2, block32AVX2, table16AVX2, kquantAVX2, elementAVX2, gemmAVX2, attentionAVX2, peakAVX2, distanceAVX2, codedAVX2}
	avx512 = variant{"avx512", convertAVX512, quantAVX512, block32AVX512, table16AVX512, kquantAVX512, elementAVX512, gemmAVX512, attentionAVX512, peakAVX512, distanceAVX512, codedAVX512}
)

// Features returns which extensions of the instruction set that the loops use this
// machine has.
func Features() []string {
	x := &cpu.X86
	var list []string
	for _, f := range []struct {
		name string
		has  bool
	}{
		{"AVX2", x.HasAVX2}, {"FMA", x.HasFMA}, {"F16C", x.HasF16C},
		{"AVX512F", x.HasAVX512F}, {"AVX512BW", x.HasAVX512BW}, {"AVX512DQ", x.HasAVX512DQ}, {"AVX512VL", x.HasAVX512VL},
	} {
		if f.has {
			list = append(list, f.name)
		}
	}
	return list
}
