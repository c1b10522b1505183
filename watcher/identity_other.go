//go:build !linux && !darwin && !windows

package watcher

import "os"

// identityOf returns an empty identity, because no portable one exists. Without it GuardNewRoot never applies.
func identityOf(*os.Root) (string, error) { return "", nil }
