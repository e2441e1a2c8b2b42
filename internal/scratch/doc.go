// Package scratch keeps what memory has no room for in files without names, which
// are gone when the process is, however it ends.
//
// Space is set aside when a file is made, so that a full disk shows before the work
// and not in its middle. What is written and read goes past the page cache where the
// file system can do that, from and to buffers that the caller owns, while the caller
// goes on. Bytes are as they are in memory: a file means nothing to another process.
package scratch
