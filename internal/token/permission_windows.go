package token

import "os"

// ReadableByOthers returns false, because Windows has no permission bits.
func ReadableByOthers(os.FileInfo) bool { return false }
