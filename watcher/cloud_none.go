//go:build nocloud

package watcher

import (
	"context"
	"errors"
	"net/url"
)

// openService returns an error, because this build supports no cloud.
func openService(context.Context, *url.URL, int) (service, error) {
	return service{}, errors.New("this kbsync was built without buckets (the nocloud tag); use a build with them")
}
