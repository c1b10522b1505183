//go:build unix

package token

import "os"

// ReadableByOthers reports whether every user may read a file. The group may, because systemd's LoadCredential and a
// Kubernetes Secret pass a token to an unprivileged process in this way.
func ReadableByOthers(info os.FileInfo) bool { return info.Mode().Perm()&0o004 != 0 }
