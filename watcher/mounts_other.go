//go:build !linux

package watcher

import "context"

// Mounts returns no directory: only Linux tells.
func (d *Directory) Mounts(context.Context) ([]string, error) { return nil, nil }
