// Package hint lets an error carry what its reader should do next, apart from
// what went wrong. The command line prints it as the last line.
//
// It knows nothing of what the errors are about.
package hint
