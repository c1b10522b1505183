//go:build !linux

package watcher

import "context"

// Mounts returns no directory: only Linux lists them.
func (d *Directory) Mounts(context.Context) ([]string, error) { return nil, nil }

// A mountWatch notices nothing: only Linux lists them.
type mountWatch struct{}

func (d *Directory) watchMounts() *mountWatch { return &mountWatch{} }

func (*mountWatch) changed() bool { return false }

func (*mountWatch) close() {}
