//go:build !linux

package memory

// PeakRSS returns 0: the system is not asked here.
func PeakRSS() int64 { return 0 }

// RSS returns 0.
func RSS() int64 { return 0 }

// Available returns 0: the system is not asked here.
func Available() int64 { return 0 }
