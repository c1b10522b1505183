//go:build linux || darwin

package watcher

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// gone adds errGone to errors that mean that a name was removed or replaced.
func gone(err error) error {
	if number, ok := errors.AsType[unix.Errno](err); ok {
		switch number {
		case unix.ENOENT, unix.ENOTDIR, unix.ELOOP:
			return fmt.Errorf("%w: %w", errGone, err)
		}
	}
	return err
}
