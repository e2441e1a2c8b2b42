// Package fsx writes files and directories so that an interrupted or failed run
// leaves the old one or the new one, never a part: content goes to a temporary
// name beside the target, is synced, and is renamed.
//
// It knows nothing of what the files hold.
package fsx
