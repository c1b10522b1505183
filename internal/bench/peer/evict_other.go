//go:build !linux

package main

import (
	"context"
	"errors"
)

func evict(context.Context, []string) error {
	return errors.New("this system has no way to drop one file from its cache")
}
