package main

import "os"

// readableByOthers returns false, because Windows has no permission bits.
func readableByOthers(os.FileInfo) bool { return false }
