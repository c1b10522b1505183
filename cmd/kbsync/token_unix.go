//go:build unix

package main

import "os"

// readableByOthers tells whether the group or everyone may read a file.
func readableByOthers(info os.FileInfo) bool { return info.Mode().Perm()&0o044 != 0 }
