package memory

import "runtime/debug"

// garbage is how much may be left lying before the collector runs. A limit that leaves it
// little has it run all the time.
const garbage = 64 << 20

// Expect limits the memory that Go manages to bytes, which are yet to be allocated, and
// some garbage. The program should collect that itself now and then.
func Expect(bytes int64) { debug.SetMemoryLimit(max(bytes, 0) + garbage) }
