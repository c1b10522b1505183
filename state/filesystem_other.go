//go:build !linux

package state

// refuseNetwork cannot recognize file systems on this system; docs/design.md says to keep the state on a local disk.
func refuseNetwork(string) error { return nil }

func ephemeralReason(string) string { return "" }
