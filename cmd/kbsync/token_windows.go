package main

import "os"

// readableByOthers is for systems with permission bits.
func readableByOthers(os.FileInfo) bool { return false }
