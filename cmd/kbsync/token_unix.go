//go:build unix

package main

import "os"

// readableByOthers tells whether everyone may read a file. A group may: that is how systemd's LoadCredential and a Secret in
// Kubernetes hand a token to a process that is not root.
func readableByOthers(info os.FileInfo) bool { return info.Mode().Perm()&0o004 != 0 }
