package memory

// PeakRSS returns the largest resident set this program has had, in bytes, or 0
// where the system does not say. (Not getrusage: its figure survives exec, so
// it may be that of the shell.)
func PeakRSS() int64 { return field("/proc/self/status", "VmHWM:") }

// RSS returns the resident set as it is now, or 0.
func RSS() int64 { return field("/proc/self/status", "VmRSS:") }
