//go:build nocloud

package watcher

import (
	"context"
	"errors"
	"net/url"
)

// openService says that this build has no clouds.
func openService(context.Context, *url.URL, int) (service, error) {
	return service{}, errors.New("this kbsync was built without buckets (the nocloud tag); take one that was built with them")
}
