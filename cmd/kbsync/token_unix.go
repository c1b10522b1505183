//go:build unix

package main

import "os"

// readableByOthers reports whether every user may read a file. The group may, because systemd's LoadCredential and a
// Kubernetes Secret pass a token to an unprivileged process in this way.
func readableByOthers(info os.FileInfo) bool { return info.Mode().Perm()&0o004 != 0 }
