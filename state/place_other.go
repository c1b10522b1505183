//go:build !linux

package state

// refuseNetwork cannot tell file systems apart here; docs/design.md says to keep the state on a local disk.
func refuseNetwork(string) error { return nil }

func fleeting(string) string { return "" }
